"""The headless Service of an attempt, by which its pods find each other."""

from __future__ import annotations

from typing import Any

from arlow_operator.render.metadata import labels, metadata
from arlow_operator.resource import Run
from arlow_operator.run_defaults import RunDefaults
from arlow_trainer.config.object_names import STATUS_PORT


def render_service(run: Run, attempt: int, defaults: RunDefaults) -> dict[str, Any]:
    """Returns the Service."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(run, attempt, defaults),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": labels(run, attempt),
            "ports": [{"name": "status", "port": STATUS_PORT}],
        },
    }
