"""The thin shell around the choices: keeps a rank in micro-batches."""

from __future__ import annotations

import atexit
import os
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, islice, tee
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from arlow_trainer.config import DataSection, ModelSection
from arlow_trainer.config.errors import ConfigError

from .choice import Modality
from .deal import MicroBatchPlan, deal
from .sample import Source
from .workers import (
    Decoded,
    Decoder,
    Job,
    end_workers,
    held_signals,
    receive,
    settle_worker,
    share_slots,
    too_many_broken,
)

_JOBS_AHEAD = 3


@dataclass(frozen=True)
class MicroBatch:
    """Samples of one modality that a device computes at once."""

    modality: Modality
    frames: torch.Tensor
    """uint8 [B, T, H, W, 3]; T is 1 for images, data.clipFrames for video. Pinned beside CUDA."""
    mask_seeds: list[int]
    """B seeds of 64 bits, unsigned."""
    indexes: list[int]
    """B global sample indexes."""


@dataclass(frozen=True)
class Skipped:
    """A broken file that another sample stands in for."""

    name: str
    reason: str


@dataclass(frozen=True)
class StepBatch:
    """A rank's share of a step; without micro-batches where ranks outnumber samples."""

    step: int
    micro_batches: list[MicroBatch]
    skipped: list[Skipped]
    """Broken files that this rank met for the first time."""


class StepLoader:
    """Iterates over a rank's share of the steps from `start_step` on, without end.

    Step s holds the samples [s x G, (s + 1) x G), G the global batch size, whatever the ranks,
    workers and micro-batch are. `iter` starts the decoding processes, which decode ahead, so call
    it before anything slow; they end with the generator's `close` or with this process.

    Raises ConfigError when a modality that is drawn has no source. Iterating raises DataError when
    a whole set or more than `data.max_skipped` files are broken, a decoding process dies or
    /dev/shm is too small; StoreError when a disk or store cannot be read for minutes;
    CredentialsError when it refuses.
    """

    def __init__(
        self,
        data: DataSection,
        model: ModelSection,
        sources: Mapping[Modality, Source],
        seed: int,
        global_batch_size: int,
        rank: int,
        ranks: int,
        micro_batch: int,
        workers: int,
        start_step: int,
    ) -> None:
        if data.video_probability < 1 and "image" not in sources:
            raise ConfigError("data.images is null, so data.videoProbability must be 1")
        if data.video_probability > 0 and "video" not in sources:
            raise ConfigError("data.videos is null, so data.videoProbability must be 0")
        # One slot more than jobs given out: the next is given out before the last is copied.
        self._decoder = Decoder(data, sources, seed, slots=_JOBS_AHEAD * workers + 1)
        self._costs = token_costs(data, model)
        self._global_batch_size = global_batch_size
        self._rank, self._ranks = rank, ranks
        self._micro_batch = micro_batch
        self._workers = workers
        self._start_step = start_step
        self._max_skipped = data.max_skipped
        self._pin = torch.cuda.is_available()

    def __iter__(self) -> Generator[StepBatch]:
        if self._workers:
            share_slots(self._decoder.slots)
        for_jobs, for_steps = tee(self._plans())
        loader = DataLoader(
            self._decoder,
            batch_size=None,
            sampler=self._jobs(for_jobs),
            num_workers=self._workers,
            prefetch_factor=_JOBS_AHEAD if self._workers else None,
            # A forked rank would carry locks and CUDA state into its children.
            multiprocessing_context="spawn" if self._workers else None,
            worker_init_fn=settle_worker,
            generator=torch.Generator(),  # else it draws from the global one
        )
        # Made here, not in the generator: the processes start now and not at the first `next`.
        with held_signals():
            decoded = iter(loader)
        # A traceback may keep the iterator alive until exit, where multiprocessing would wait for
        # ever for processes that ignore SIGTERM: end them before it does.
        atexit.register(end := partial(end_workers, decoded))
        return self._steps(for_steps, decoded, end)

    def _plans(self) -> Iterator[tuple[int, list[MicroBatchPlan]]]:
        """Yields this rank's hand of every step."""
        size = self._global_batch_size
        for step in count(self._start_step):
            choices = [self._decoder.choose(step * size + place) for place in range(size)]
            yield step, deal(choices, self._costs, self._ranks, self._micro_batch)[self._rank]

    def _jobs(self, plans: Iterator[tuple[int, list[MicroBatchPlan]]]) -> Iterator[Job]:
        cuts = (self._decoder.cut(list(chain(*hand))) for _, hand in plans)
        for number, choices in enumerate(chain.from_iterable(cuts)):
            yield Job(number % len(self._decoder.slots), choices)

    def _steps(
        self,
        plans: Iterator[tuple[int, list[MicroBatchPlan]]],
        decoded: Iterator[Decoded],
        end: partial[None],
    ) -> Generator[StepBatch]:
        broken: dict[str, str] = {}
        rows = self._rows(decoded, broken)
        try:
            for step, hand in plans:
                known = len(broken)
                micro_batches = [self._gather(plan, rows) for plan in hand]
                if not hand:
                    receive(decoded)  # its empty job
                first_met = islice(broken.items(), known, None)
                yield StepBatch(step, micro_batches, [Skipped(*item) for item in first_met])
        finally:
            end()
            atexit.unregister(end)

    def _rows(self, decoded: Iterator[Decoded], broken: dict[str, str]) -> Iterator[torch.Tensor]:
        """Yields the samples in the jobs' order, each to be copied at once; notes broken files."""
        while True:
            done = receive(decoded)
            for name, reason in done.broken.items():
                broken.setdefault(name, reason)
            if len(broken) > self._max_skipped:
                raise too_many_broken(broken, self._max_skipped)
            yield from self._decoder.frames_of(done.job)

    def _gather(self, plan: MicroBatchPlan, rows: Iterator[torch.Tensor]) -> MicroBatch:
        first = next(rows)
        frames = torch.empty((len(plan), *first.shape), dtype=torch.uint8, pin_memory=self._pin)
        for place, row in zip(frames, chain([first], rows), strict=False):
            place.copy_(row)
        return MicroBatch(
            plan[0].modality,
            frames,
            [choice.mask_seed for choice in plan],
            [choice.index for choice in plan],
        )


def token_costs(data: DataSection, model: ModelSection) -> dict[Modality, int]:
    """Returns a sample's patch tokens, by modality."""
    image = (data.image_size // model.patch_size) ** 2
    return {"image": image, "video": image * (data.clip_frames // model.temporal_patch_size)}


def workers_per_rank(ranks_here: int) -> int:
    """Returns the decoding processes of each of `ranks_here` ranks that share this machine.

    All cores that this process may use, by affinity and by the container's limit; at least one.
    """
    # macOS has no affinity.
    affine = getattr(os, "sched_getaffinity", None)
    cores = float(len(affine(0)) if affine is not None else os.cpu_count() or 1)
    limit = Path("/sys/fs/cgroup/cpu.max")
    if limit.is_file():
        quota, period = limit.read_text().split()
        if quota != "max":
            cores = min(cores, int(quota) / int(period))
    return max(1, int(cores) // ranks_here)
