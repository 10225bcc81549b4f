"""A run as the API has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def run_body(spec: Mapping[str, Any], uid: str = "run-1", generation: int = 1) -> dict[str, Any]:
    """Returns the run `run` of the namespace `team`, with a spec as a manifest has it."""
    return {
        "apiVersion": "arlow.dev/v1alpha1",
        "kind": "ArlowPretrain",
        "metadata": {
            "name": "run",
            "namespace": "team",
            "uid": uid,
            "generation": generation,
            "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {},
            "annotations": {},
        },
        "spec": spec,
    }
