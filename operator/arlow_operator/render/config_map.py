"""The ConfigMap of an attempt: the run's manifest, as the user wrote it."""

from __future__ import annotations

import json
from typing import Any

from arlow_operator.render.metadata import metadata
from arlow_operator.resource import Run, attempt_name

MANIFEST = "run.yaml"


def config_map_name(run: Run, attempt: int) -> str:
    """Returns the name of an attempt's ConfigMap.

    The run's uid is in it: a kubelet keeps what an immutable ConfigMap of a name held while a pod
    on it still has it, and would give that to the pods of a run created anew under its name.
    """
    return f"{attempt_name(run.name, attempt)}-{run.uid[:8]}"


def render_config_map(run: Run, attempt: int) -> dict[str, Any]:
    """Returns the ConfigMap; the manifest in it is JSON, which is YAML without doubts."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(run, attempt) | {"name": config_map_name(run, attempt)},
        "immutable": True,
        "data": {MANIFEST: json.dumps(run.document, indent=1, ensure_ascii=False) + "\n"},
    }
