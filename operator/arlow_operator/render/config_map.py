"""The ConfigMaps of an attempt: the run's manifest, as the user wrote it, and its environment."""

from __future__ import annotations

import json
from typing import Any

from arlow_operator.render.metadata import metadata
from arlow_operator.resource import Run, attempt_name
from arlow_operator.run_defaults import CA_BUNDLE, RunDefaults

MANIFEST = "run.yaml"


def config_map_name(run: Run, attempt: int) -> str:
    """Returns the name of an attempt's ConfigMap.

    The run's uid is in it: a kubelet keeps what an immutable ConfigMap of a name held while a pod
    on it still has it, and would give that to the pods of a run created anew under its name.
    """
    return f"{attempt_name(run.name, attempt)}-{run.uid[:8]}"


def environment_name(run: Run, attempt: int) -> str:
    """Returns the name of the ConfigMap of an attempt's default environment."""
    return f"{config_map_name(run, attempt)}-env"


def render_config_map(run: Run, attempt: int, defaults: RunDefaults) -> dict[str, Any]:
    """Returns the ConfigMap that is mounted: the manifest, as JSON, which is YAML without doubts,
    and the certificates that are trusted."""
    data = {MANIFEST: json.dumps(run.document, indent=1, ensure_ascii=False) + "\n"}
    if defaults.ca_bundle:
        data[CA_BUNDLE] = defaults.ca_bundle
    return _config_map(run, attempt, defaults, config_map_name(run, attempt), data)


def render_environment(run: Run, attempt: int, defaults: RunDefaults) -> dict[str, Any] | None:
    """Returns the ConfigMap of the default environment; None where there is none.

    It is one of its own, since of two sources of a pod's environment the later wins: so what the
    run's Secret says wins over a default, though the operator does not read it.
    """
    if not defaults.variables:
        return None
    name = environment_name(run, attempt)
    return _config_map(run, attempt, defaults, name, defaults.variables)


def _config_map(
    run: Run, attempt: int, defaults: RunDefaults, name: str, data: dict[str, str]
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(run, attempt, defaults) | {"name": name},
        "immutable": True,
        "data": data,
    }
