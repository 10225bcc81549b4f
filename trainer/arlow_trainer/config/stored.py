"""The run that a checkpoint holds: what is saved of it, and how it is read back.

What only a cluster uses stays out: checkpoints are copied and passed on, and environment variables,
annotations and patches hold what is meant for the cluster alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from arlow_trainer.config.load import without_nulls
from arlow_trainer.config.models import ArlowPretrain

# Fields in which null meant "none" or "all" until 0 did. A set that was null was never drawn from.
_NULL_WAS_ZERO = (
    "training.picturesEverySteps",
    "training.probe.limit",
    "training.batch.globalSize",
)


# Fields of the spec's sections that say what the training is, and where; all of spec.training.
_SAVED = {
    "checkpoint": ("url", "everySteps", "everyMinutes", "keepLast", "keepEvery", "options"),
    "nodes": ("count", "gpus", "gpuProduct", "ranks"),
}
_DIGIT_FIRST = re.compile(r"[0-9]([-a-z0-9]{0,50}[a-z0-9])?")


def training_part(run: ArlowPretrain) -> dict[str, Any]:
    """Returns what is saved of a run, as the manifest is written."""
    return without_cluster(run.model_dump(mode="json", by_alias=True, exclude_none=True))


def without_cluster(document: Mapping[str, Any]) -> dict[str, Any]:
    """Returns of a run's document, of any version, what is saved of a run."""
    part = _with_nodes({key: value for key, value in document.items() if key != "status"})
    metadata, spec = part.get("metadata"), part.get("spec")
    if isinstance(metadata, dict):
        part["metadata"] = _only(metadata, ("name",))
    if isinstance(spec, dict):
        part["spec"] = {
            name: _only(section, _SAVED[name]) if name in _SAVED else section
            for name, section in _only(spec, ("training", *_SAVED)).items()
        }
    return part


def stored_run(document: Mapping[str, Any]) -> ArlowPretrain:
    """Returns the run of a checkpoint's training state. Raises pydantic's ValidationError."""
    for path in _NULL_WAS_ZERO:
        document = _zero_for_null(document, ["spec", *path.split(".")])
    document = without_cluster(without_nulls(document))
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    # Names that begin with a digit were allowed.
    if isinstance(name, str) and _DIGIT_FIRST.fullmatch(name):
        run = ArlowPretrain.model_validate({**document, "metadata": {"name": "a"}})
        return run.model_copy(update={"metadata": run.metadata.model_copy(update={"name": name})})
    return ArlowPretrain.model_validate(document)


def _only(section: Any, names: Sequence[str]) -> Any:
    if not isinstance(section, dict):
        return section
    return {name: section[name] for name in names if name in section}


def _with_nodes(document: dict[str, Any]) -> dict[str, Any]:
    """Returns a run with `spec.nodes` for what was `spec.resources`."""
    spec = document.get("spec")
    if not isinstance(spec, dict) or not isinstance(spec.get("resources"), dict):
        return document
    names = {"nodes": "count", "gpusPerNode": "gpus", "gpu": "gpuProduct"}
    nodes = {names.get(key, key): value for key, value in spec["resources"].items()}
    others = {key: value for key, value in spec.items() if key != "resources"}
    return {**document, "spec": {**others, "nodes": nodes}}


def _zero_for_null(node: Any, path: list[str]) -> Any:
    if not isinstance(node, Mapping) or path[0] not in node:
        return node
    value = node[path[0]]
    if len(path) == 1:
        return {**node, path[0]: 0 if value is None else value}
    return {**node, path[0]: _zero_for_null(value, path[1:])}
