"""The claim of a run's cache: prepared data sets outlive the attempts, and go with the run."""

from __future__ import annotations

from typing import Any

from arlow_operator.render.metadata import labels_of_run, owner
from arlow_operator.resource import Run
from arlow_operator.run_defaults import RunDefaults
from arlow_trainer.config import ArlowPretrain


def cache_claim_name(run: Run) -> str:
    """Returns the name of the claim."""
    return f"{run.name}-cache"


def render_cache_claim(
    run: Run, parsed: ArlowPretrain, defaults: RunDefaults
) -> dict[str, Any] | None:
    """Returns the claim; None where the run names one, or keeps its cache in the pod."""
    cache = parsed.spec.cache_volume
    if cache is None or not cache.size:
        return None
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": cache.size}},
    }
    if cache.storage_class_name:
        spec["storageClassName"] = cache.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": cache_claim_name(run),
            "namespace": run.namespace,
            "labels": defaults.labels | labels_of_run(run),
            "ownerReferences": [owner(run)],
        },
        "spec": spec,
    }
