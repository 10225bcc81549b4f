"""A small run's training section, its engine and its micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from arlow_trainer.config import Compile, Modality, TrainingSection
from arlow_trainer.engine import Ranks, StepRunner, build_autoencoder, initialize_engine
from arlow_trainer.engine.graphs import Graphs
from arlow_trainer.engine.setup import Precision
from arlow_trainer.plan.micro_batches import Sizes

SMALL = {
    "model": {"depth": 6, "embedDim": 48, "hiddenSize": 64, "numHeads": 2, "patchSize": 4},
    "mae": {"decoderDim": 32, "decoderDepth": 1, "decoderHeads": 2},
    "data": {"imageSize": 32, "clipFrames": 4},
    "optimizer": {"learningRate": 1e-3, "warmupSteps": 2},
}


WAY = 1e-3
"""How far apart two trainings may be that differ in rounding alone; see `apart`.

Machines round otherwise, and AdamW makes a full step of a gradient that is nothing but rounding,
such as that of a key's bias; a sample that is lost or counted twice makes a tenth and more.
"""


def apart(
    ours: Mapping[str, torch.Tensor],
    theirs: Mapping[str, torch.Tensor],
    start: Mapping[str, torch.Tensor],
) -> float:
    """How far two trainings from `start` are apart, as a share of their way."""
    away = sum((ours[name] - theirs[name]).float().square().sum() for name in ours)
    way = sum((ours[name] - start[name]).float().square().sum() for name in ours)
    return float((away / way).sqrt())


@dataclass
class Samples:
    """A micro-batch of noise."""

    frames: torch.Tensor
    modality: Modality = "image"
    indexes: Sequence[int] = field(default_factory=list)
    mask_seeds: Sequence[int] = field(default_factory=list)


def training(compile: Compile = "auto", **optimizer: Any) -> TrainingSection:
    section = SMALL | {"optimizer": SMALL["optimizer"] | optimizer, "compile": compile}
    return TrainingSection.model_validate(section)


def samples(count: int, frames: int = 1, first: int = 0) -> Samples:
    """Samples `first`, `first + 1`, ... of the noise that all tests share."""
    pixels = [
        torch.randint(
            0,
            256,
            (frames, 32, 32, 3),
            dtype=torch.uint8,
            generator=torch.Generator().manual_seed(index),
        )
        for index in range(first, first + count)
    ]
    indexes = list(range(first, first + count))
    modality = "image" if frames == 1 else "video"
    return Samples(torch.stack(pixels), modality, indexes, indexes)


def build_runner(
    global_batch_size: int,
    precision: Precision = "fp32",
    sizes: Mapping[Modality, Sizes] | None = None,
    ranks: Ranks | None = None,
    on_warning: Callable[[str], None] | None = None,
    compile: Compile = "auto",
    graphs: Graphs | None = None,
    **optimizer: Any,
) -> StepRunner:
    section = training(compile, **optimizer)
    module = build_autoencoder(section)
    engine = initialize_engine(module, section, precision, torch.device("cpu"))
    return StepRunner(engine, section, global_batch_size, 20, sizes, ranks, on_warning, graphs)


def weights(runner: StepRunner) -> dict[str, torch.Tensor]:
    state = runner.engine.module.state_dict()
    return {name: value.clone() for name, value in state.items()}
