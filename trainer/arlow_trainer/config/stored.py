"""Reads the run that a checkpoint holds, as this version or an earlier one wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from arlow_trainer.config.load import without_nulls
from arlow_trainer.config.models import ArlowPretrain

# Fields in which null meant "none" or "all" until 0 did. A set that was null was never drawn from.
_NULL_WAS_ZERO = (
    "training.picturesEverySteps",
    "training.probe.limit",
    "training.batch.globalSize",
)


def stored_run(document: Mapping[str, Any]) -> ArlowPretrain:
    """Returns the run of a checkpoint's training state. Raises pydantic's ValidationError."""
    for path in _NULL_WAS_ZERO:
        document = _zero_for_null(document, ["spec", *path.split(".")])
    return ArlowPretrain.model_validate(without_nulls(document))


def _zero_for_null(node: Any, path: list[str]) -> Any:
    if not isinstance(node, Mapping) or path[0] not in node:
        return node
    value = node[path[0]]
    if len(path) == 1:
        return {**node, path[0]: 0 if value is None else value}
    return {**node, path[0]: _zero_for_null(value, path[1:])}
