"""The ConfigMap of an attempt: the run's manifest, as the user wrote it."""

from __future__ import annotations

import json
from typing import Any

from arlow_operator.render.metadata import metadata
from arlow_operator.resource import Run

MANIFEST = "run.yaml"


def render_config_map(run: Run, attempt: int) -> dict[str, Any]:
    """Returns the ConfigMap; the manifest in it is JSON, which is YAML without doubts."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(run, attempt),
        "immutable": True,
        "data": {MANIFEST: json.dumps(run.document, indent=1, ensure_ascii=False) + "\n"},
    }
