"""Presets: defaults laid under a file's training section before it is validated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from arlow_trainer.config.models import DataSection

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
            # A narrow layer needs larger weights to pass a signal on.
            "initializerRange": 0.1,
        },
        "mae": {"decoderDim": 32, "decoderDepth": 2, "decoderHeads": 2},
        "data": {"repeat": True, "imageSize": 96, "clipFrames": 4},
        "batch": {"globalSize": 32},
        "optimizer": {"learningRate": 1e-3, "warmupSteps": 50},
    },
}


# So that one field of a default data set, its split say, can be changed alone.
DEFAULT_SETS = {"data": DataSection().model_dump(by_alias=True, include={"images", "videos"})}


def deep_merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `base` with `over` laid on top, mapping by mapping."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = deep_merge(below, value) if both else value  # type: ignore[arg-type]
    return merged


def apply_preset(training: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a raw training section with its preset's values under its own.

    Where one of the two sets is null and no probability is given, the other is all there is.
    """
    preset = PRESETS.get(str(training.get("preset", "arlow-vision-3072")), {})
    merged = deep_merge(deep_merge(DEFAULT_SETS, preset), training)
    if isinstance(merged["data"], dict):
        for modality, probability in (("videos", 0.0), ("images", 1.0)):
            if merged["data"][modality] is None:
                merged["data"].setdefault("videoProbability", probability)
    return merged
