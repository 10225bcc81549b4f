"""Loaders of a single rank on a data section, which need not suit any tower."""

from __future__ import annotations

from collections.abc import Mapping

from arlow_trainer.config import DataSection, Modality, ModelSection, TrainingSection
from arlow_trainer.data import Source, StepLoader


def training_on(data: DataSection, model: ModelSection, seed: int) -> TrainingSection:
    """A training section of these parts; whether they fit each other is not checked."""
    return TrainingSection().model_copy(update={"data": data, "model": model, "seed": seed})


def one_rank_loader(
    data: DataSection, sources: Mapping[Modality, Source], batch: int, workers: int
) -> StepLoader:
    """The loader of the only rank, a whole batch a micro-batch, from the first step on."""
    return StepLoader(
        training_on(data, ModelSection(), seed=0),
        sources,
        global_batch_size=batch,
        rank=0,
        ranks=1,
        micro_batch=batch,
        workers=workers,
        start_step=0,
    )
