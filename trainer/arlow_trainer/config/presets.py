"""Presets: named sets of defaults for a manifest's training section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from arlow_trainer.config.training import DataSection

# Written as a user would write them in YAML. The full run is the schema's own defaults.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "arlow-vision-3072": {},
    "tiny": {
        "maxStepsPerEpoch": 1000,
        "precision": "fp32",
        "picturesEverySteps": 200,
        "model": {
            "depth": 6,
            "embedDim": 48,
            "hiddenSize": 96,
            "numHeads": 2,
            "patchSize": 3,
            # Narrow layers need larger weights to propagate the signal.
            "initializerRange": 0.1,
        },
        "mae": {"decoderDim": 32, "decoderDepth": 2, "decoderHeads": 2},
        "data": {"repeat": True, "imageSize": 96, "clipFrames": 4},
        "batch": {"globalSize": 32},
        "optimizer": {"learningRate": 1e-3, "warmupSteps": 50},
    },
}

# So that one field of a default data set, such as its split, can be changed alone.
DEFAULT_SETS = {
    "data": DataSection().model_dump(by_alias=True, exclude_none=True, include={"images", "videos"})
}


def deep_merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `base` updated with `over`; mappings in both are merged recursively."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = deep_merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def apply_preset(training: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a training section with the defaults of its preset; its own values take precedence.

    Args:
        training: the section as written in YAML, without nulls, not validated yet.
    """
    preset = PRESETS.get(str(training.get("preset", "arlow-vision-3072")), {})
    return deep_merge(deep_merge(DEFAULT_SETS, preset), training)
