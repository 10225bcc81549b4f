"""Reads the run that a checkpoint holds, as this version or an earlier one wrote it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from arlow_trainer.config.load import without_nulls
from arlow_trainer.config.models import ArlowPretrain, Metadata

# Fields in which null meant "none" or "all" until 0 did. A set that was null was never drawn from.
_NULL_WAS_ZERO = (
    "training.picturesEverySteps",
    "training.probe.limit",
    "training.batch.globalSize",
)


_METADATA = {str(field.alias) for field in Metadata.model_fields.values()}
_DIGIT_FIRST = re.compile(r"[0-9]([-a-z0-9]{0,50}[a-z0-9])?")


def stored_run(document: Mapping[str, Any]) -> ArlowPretrain:
    """Returns the run of a checkpoint's training state. Raises pydantic's ValidationError."""
    for path in _NULL_WAS_ZERO:
        document = _zero_for_null(document, ["spec", *path.split(".")])
    document = _with_nodes(without_nulls(document))
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        return ArlowPretrain.model_validate(document)
    # Unknown fields were allowed, and names that begin with a digit.
    known = {key: metadata[key] for key in metadata.keys() & _METADATA}
    name = known.get("name")
    if isinstance(name, str) and _DIGIT_FIRST.fullmatch(name):
        run = ArlowPretrain.model_validate({**document, "metadata": {**known, "name": "a"}})
        return run.model_copy(update={"metadata": run.metadata.model_copy(update={"name": name})})
    return ArlowPretrain.model_validate({**document, "metadata": known})


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
