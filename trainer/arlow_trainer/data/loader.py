"""A rank's share of every step, decoded by processes and gathered into micro-batches."""

from __future__ import annotations

import atexit
import math
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, islice, tee

import numpy as np
import torch
from torch.utils.data import DataLoader

from arlow_trainer.config import DataSection, Modality, ModelSection, TrainingSection
from arlow_trainer.data.buffers import BufferPool
from arlow_trainer.data.decode import Source
from arlow_trainer.data.decoder import (
    Decoded,
    Decoder,
    Job,
    receive,
    share_slots,
    too_many_broken,
)
from arlow_trainer.data.look_ahead import LookAhead
from arlow_trainer.data.order import MicroBatchPlan, deal
from arlow_trainer.data.worker_processes import (
    end_workers,
    init_worker,
    sigchld_kept,
    signals_blocked,
)
from arlow_trainer.plan.loading import BYTES_AHEAD, JOBS_AHEAD, STEPS_AHEAD, slots
from arlow_trainer.plan.micro_batches import micro_batch_sizes

# How often the loader looks whether it is to end while it waits for a sample.
_LOOK_S = 0.5


@dataclass(frozen=True)
class MicroBatch:
    """Samples of one modality that a device computes at once."""

    modality: Modality
    frames: torch.Tensor
    """uint8 [B, T, H, W, 3]; T is 1 for images, data.clipFrames for video. Pinned where CUDA is.
    Its memory is used again when no tensor refers to it any more."""
    mask_seeds: list[int]
    """B seeds of 64 bits, unsigned."""
    indexes: list[int]
    """B global sample indexes."""


@dataclass(frozen=True)
class Skipped:
    """A broken file that another sample replaces."""

    name: str
    reason: str


@dataclass(frozen=True)
class StepBatch:
    """A rank's share of a step; without micro-batches where ranks outnumber samples."""

    step: int
    micro_batches: list[MicroBatch]
    skipped: list[Skipped]
    """Broken files that this rank met for the first time."""

    @property
    def nbytes(self) -> int:
        """The bytes of all frames."""
        return sum(micro_batch.frames.nbytes for micro_batch in self.micro_batches)


class StepLoader:
    """Iterates over a rank's share of the steps from `start_step` on, without end.

    Step s holds the samples [s x G, (s + 1) x G), G the global batch size, whatever the ranks,
    workers and micro-batch are. `iter` starts the decoding processes, which decode ahead, so call
    it before anything slow; they end with the generator's `close` or with this process.

    Iterating raises DataError when
    a whole set or more than `data.max_skipped` files are broken, a decoding process crashes or
    /dev/shm is too small; ProcessKilled when a decoding process is killed; StoreError when a disk
    or store cannot be read for minutes; CredentialsError when access is refused.
    """

    def __init__(
        self,
        training: TrainingSection,
        sources: Mapping[Modality, Source],
        *,
        global_batch_size: int,
        rank: int,
        ranks: int,
        micro_batch: int,
        workers: int,
        start_step: int,
        on_worker: Callable[[int], None] | None = None,
    ) -> None:
        """Prepares the loader of one rank.

        Args:
            training: says what is drawn (`data`, `seed`) and what a sample costs (`model`).
            sources: the opened sets by modality, at least those that samples are drawn from.
            global_batch_size: samples of a step over all ranks.
            rank, ranks: this rank, and how many there are.
            micro_batch: images of a micro-batch; clips count by their tokens.
            workers: decoding processes of this rank; 0 decodes in this process.
            start_step: the first step.
            on_worker: called with its number in every decoding process; it is pickled.
        """
        data = training.data
        self._decoder = Decoder(data, sources, training.seed, slots=slots(workers))
        self._costs = token_costs(data, training.model)
        self._global_batch_size = global_batch_size
        self._rank, self._ranks = rank, ranks
        self._sizes = micro_batch_sizes(training, global_batch_size, ranks, micro_batch)
        self._workers = workers
        self._start_step, self._on_worker = start_step, on_worker

    def __iter__(self) -> Generator[StepBatch]:
        if self._workers:
            share_slots(self._decoder.slots)
        for_jobs, for_steps = tee(self._plans())
        loader = DataLoader(
            self._decoder,
            batch_size=None,
            sampler=self._jobs(for_jobs),
            num_workers=self._workers,
            prefetch_factor=JOBS_AHEAD if self._workers else None,
            # A forked child would inherit the rank's locks and CUDA state.
            multiprocessing_context="spawn" if self._workers else None,
            worker_init_fn=partial(init_worker, self._on_worker),
            generator=torch.Generator(),  # else it draws from the global one
            timeout=_LOOK_S if self._workers else 0,
        )
        # Created here, not in the generator: the processes start now and not at the first `next`.
        with signals_blocked(), sigchld_kept():
            decoded = iter(loader)
        ending = threading.Event()
        pool = BufferPool(torch.cuda.current_stream() if torch.cuda.is_available() else None)
        steps = self._steps(for_steps, decoded, pool, ending)
        if not self._workers:
            return steps
        ahead = LookAhead(steps, lambda step: step.nbytes, STEPS_AHEAD, BYTES_AHEAD, "loader")

        def end() -> None:
            ending.set()
            ahead.close()
            end_workers(decoded)

        # A traceback may keep the iterator alive until exit, where multiprocessing would wait
        # forever for processes that ignore SIGTERM: end them before that.
        atexit.register(end)
        return _until_closed(ahead, end)

    def _plans(self) -> Iterator[tuple[int, list[MicroBatchPlan]]]:
        """Yields the micro-batches that every step deals to this rank."""
        size = self._global_batch_size
        for step in count(self._start_step):
            choices = [self._decoder.choose(step * size + offset) for offset in range(size)]
            yield step, deal(choices, self._costs, self._ranks, self._sizes)[self._rank]

    def _jobs(self, plans: Iterator[tuple[int, list[MicroBatchPlan]]]) -> Iterator[Job]:
        of_steps = (self._decoder.cut(list(chain(*share))) for _, share in plans)
        for number, choices in enumerate(chain.from_iterable(of_steps)):
            yield Job(number % len(self._decoder.slots), choices)

    def _steps(
        self,
        plans: Iterator[tuple[int, list[MicroBatchPlan]]],
        decoded: Iterator[Decoded],
        pool: BufferPool,
        ending: threading.Event,
    ) -> Generator[StepBatch]:
        broken: dict[str, str] = {}
        for step, share in plans:
            known = len(broken)
            micro_batches = self._gather(share, decoded, broken, pool, ending)
            skipped = [Skipped(*item) for item in islice(broken.items(), known, None)]
            yield StepBatch(step, micro_batches, skipped)
            # Its memory is needed again.
            del micro_batches

    def _gather(
        self,
        share: list[MicroBatchPlan],
        decoded: Iterator[Decoded],
        broken: dict[str, str],
        pool: BufferPool,
        ending: threading.Event,
    ) -> list[MicroBatch]:
        """Copies a rank's share of a step out of the slots it was decoded into.

        By numpy, which copies in this thread alone and without the interpreter's lock: torch would
        divide every sample among its threads, and wait for the last of them.
        """
        shapes = [(len(plan), *self._decoder.sample_shape(plan[0].modality)) for plan in share]
        sizes = [math.prod(shape) for shape in shapes]
        memory = pool.take(sum(sizes))
        to, filled = memory.numpy(), 0
        for _ in self._decoder.cut(list(chain(*share))):
            done = receive(decoded, ending)
            for name, reason in done.broken.items():
                broken.setdefault(name, reason)
            if len(broken) > self._decoder.most_skipped:
                raise too_many_broken(broken, self._decoder.most_skipped)
            samples = self._decoder.frames_of(done.job).numpy().reshape(-1)
            np.copyto(to[filled : filled + samples.size], samples)
            filled += samples.size
        return [
            MicroBatch(
                plan[0].modality,
                frames.view(shape),
                [choice.mask_seed for choice in plan],
                [choice.index for choice in plan],
            )
            for plan, shape, frames in zip(share, shapes, memory.split(sizes), strict=True)
        ]


def _until_closed(ahead: LookAhead[StepBatch], end: Callable[[], None]) -> Generator[StepBatch]:
    try:
        # Not `yield from`: closing this would close what runs ahead first, which waits for samples
        # until `end` says that there is no need.
        for step in ahead:  # noqa: UP028
            yield step
    finally:
        end()
        atexit.unregister(end)


def token_costs(data: DataSection, model: ModelSection) -> dict[Modality, int]:
    """Returns a sample's patch tokens, by modality."""
    image = (data.image_size // model.patch_size) ** 2
    return {"image": image, "video": image * (data.clip_frames // model.temporal_patch_size)}
