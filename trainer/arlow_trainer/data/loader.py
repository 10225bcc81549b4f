"""A rank's share of every step, decoded by processes and gathered into micro-batches."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, groupby, islice, tee
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from arlow_trainer.config import DataSection, Modality, ModelSection, TrainingSection
from arlow_trainer.config.errors import ArlowError, DataError
from arlow_trainer.data.decode import (
    BrokenSample,
    Pixels,
    Source,
    decode_clip,
    decode_image,
    random_view,
)
from arlow_trainer.data.order import Choice, MicroBatchPlan, choose, deal
from arlow_trainer.data.worker_processes import (
    end_workers,
    init_worker,
    sigchld_kept,
    signals_blocked,
    worker_died,
)
from arlow_trainer.plan.micro_batches import micro_batch_sizes

_JOBS_AHEAD = 3
# Small enough to divide a step among the processes, large enough that a job's overhead is small.
_FRAMES_PER_JOB = 16
_NAMED_IN_ERRORS = 5


@dataclass(frozen=True)
class MicroBatch:
    """Samples of one modality that a device computes at once."""

    modality: Modality
    frames: torch.Tensor
    """uint8 [B, T, H, W, 3]; T is 1 for images, data.clipFrames for video. Pinned where CUDA is."""
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
        # One slot more than jobs in flight: the next is issued before the last is copied.
        self._decoder = Decoder(data, sources, training.seed, slots=_JOBS_AHEAD * workers + 1)
        self._costs = token_costs(data, training.model)
        self._global_batch_size = global_batch_size
        self._rank, self._ranks = rank, ranks
        self._sizes = micro_batch_sizes(training, global_batch_size, ranks, micro_batch)
        self._workers = workers
        self._start_step, self._on_worker = start_step, on_worker
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
            # A forked child would inherit the rank's locks and CUDA state.
            multiprocessing_context="spawn" if self._workers else None,
            worker_init_fn=partial(init_worker, self._on_worker),
            generator=torch.Generator(),  # else it draws from the global one
        )
        # Created here, not in the generator: the processes start now and not at the first `next`.
        with signals_blocked(), sigchld_kept():
            decoded = iter(loader)
        # A traceback may keep the iterator alive until exit, where multiprocessing would wait
        # forever for processes that ignore SIGTERM: end them before that.
        atexit.register(end := partial(end_workers, decoded))
        return self._steps(for_steps, decoded, end)

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
        end: partial[None],
    ) -> Generator[StepBatch]:
        broken: dict[str, str] = {}
        rows = self._rows(decoded, broken)
        try:
            for step, share in plans:
                known = len(broken)
                micro_batches = [self._gather(plan, rows) for plan in share]
                if not share:
                    receive(decoded)  # its empty job
                new = islice(broken.items(), known, None)
                yield StepBatch(step, micro_batches, [Skipped(*item) for item in new])
        finally:
            end()
            atexit.unregister(end)

    def _rows(self, decoded: Iterator[Decoded], broken: dict[str, str]) -> Iterator[torch.Tensor]:
        """Yields the samples in the jobs' order, and adds to `broken`.

        Each lies in a slot that is soon reused: copy it before the next.
        """
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
        for sample, row in zip(frames, chain([first], rows), strict=False):
            sample.copy_(row)
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


# Decoding in processes


class Job(NamedTuple):
    """Samples of one modality to decode into a slot."""

    slot: int
    choices: tuple[Choice, ...]


class Decoded(NamedTuple):
    """A finished job: the broken files that it met and their reasons, and why it failed, if so."""

    job: Job
    broken: dict[str, str]
    failure: ArlowError | None


class Decoder(Dataset[Decoded]):
    """Decodes jobs into its slots. Every decoding process has a copy, and all share the slots."""

    def __init__(
        self, data: DataSection, sources: Mapping[Modality, Source], seed: int, slots: int
    ) -> None:
        self._data = data
        self._sources = dict(sources)
        self._sizes = {modality: len(source) for modality, source in sources.items()}
        self._seed = seed
        self._job_sizes = {m: max(1, _FRAMES_PER_JOB // self._length(m)) for m in sources}
        frames = max(self._job_sizes[m] * self._length(m) for m in sources)
        self.slots = torch.empty((slots, frames, *self.frame_shape), dtype=torch.uint8)

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a frame."""
        return self._data.image_size, self._data.image_size, 3

    def choose(self, index: int, attempt: int = 0) -> Choice:
        """Returns the sample of a global index, or its replacement of a number from 1 on."""
        return choose(self._seed, index, self._sizes, self._data.video_probability, attempt)

    def cut(self, choices: Sequence[Choice]) -> list[tuple[Choice, ...]]:
        """Cuts a rank's share of a step into the choices of jobs; no choices into one empty job."""
        jobs = []
        for modality, group in groupby(choices, key=lambda choice: choice.modality):
            run = tuple(group)
            size = self._job_sizes[modality]
            jobs += [run[start : start + size] for start in range(0, len(run), size)]
        return jobs or [()]

    def frames_of(self, job: Job) -> torch.Tensor:
        """Returns the part of its slot that a job fills: uint8 [B, T, H, W, 3]."""
        length = self._length(job.choices[0].modality) if job.choices else 1
        frames = self.slots[job.slot, : len(job.choices) * length]
        return frames.view(len(job.choices), length, *self.frame_shape)

    def __getitem__(self, job: Job) -> Decoded:
        broken: dict[str, str] = {}
        pixels = self.frames_of(job).numpy()
        try:
            for row, choice in enumerate(job.choices):
                pixels[row] = self._decode(choice, broken)
        except ArlowError as error:
            # As a value: the loader would raise an exception wrapped in this process's traceback.
            return Decoded(job, broken, error)
        return Decoded(job, broken, None)

    def _decode(self, choice: Choice, broken: dict[str, str]) -> Pixels:
        """Decodes a sample, or the first of its replacements that is not broken.

        Adds the broken files that it met to `broken`.
        """
        met: dict[str, str] = {}
        for attempt in range(min(self._sizes[choice.modality], self._data.max_skipped + 1)):
            try:
                return self._view(self.choose(choice.index, attempt) if attempt else choice)
            except BrokenSample as error:
                met[error.name] = broken[error.name] = error.reason
        if len(met) > self._data.max_skipped:
            raise too_many_broken(met, self._data.max_skipped)
        raise DataError(
            f"every sample tried was broken, all {len(met)} {choice.modality}s of the set:\n"
            f"{_last_named(met)}\nPut readable {choice.modality}s there"
        )

    def _view(self, choice: Choice) -> Pixels:
        data = self._data
        raw = self._sources[choice.modality].read(choice.position)
        if choice.modality == "image":
            frames = [decode_image(raw)]
        else:
            frames = decode_clip(raw, data.clip_frames, data.frame_stride, choice.seed)
        return random_view(frames, data.image_size, choice.seed, data.min_crop_scale, data.flip)

    def _length(self, modality: Modality) -> int:
        return self._data.clip_frames if modality == "video" else 1


def share_slots(slots: torch.Tensor) -> None:
    """Moves slots to shared memory. Raises DataError when /dev/shm is too small."""
    try:
        slots.share_memory_()
    except RuntimeError as error:
        raise DataError(
            f"the decoding processes of a rank share {slots.nbytes / 2**20:.0f} MiB, more than "
            f"/dev/shm has left ({error}); lower data.workers, or make it larger (in a pod: a "
            "memory-backed volume at /dev/shm; in Docker: --shm-size)"
        ) from error


def receive(decoded: Iterator[Decoded]) -> Decoded:
    """Returns the next finished job. Raises what it failed with.

    For a dead decoding process that is ProcessKilled where memory ran out, DataError where it
    crashed.
    """
    try:
        done = next(decoded)
    except RuntimeError as error:
        # Not "Caught RuntimeError in DataLoader worker process", which comes from a live process.
        if "DataLoader worker (pid" not in str(error):
            raise
        raise worker_died(decoded) from error
    if done.failure is not None:
        raise done.failure
    return done


def too_many_broken(broken: Mapping[str, str], allowed: int) -> DataError:
    """Returns the error to raise when the broken files are too many to skip."""
    return DataError(
        f"{len(broken)} files cannot be decoded, more than {allowed}; the last:\n"
        f"{_last_named(broken)}\nRepair or remove them, or raise data.maxSkipped"
    )


def _last_named(broken: Mapping[str, str]) -> str:
    last = list(broken.items())[-_NAMED_IN_ERRORS:]
    return "\n".join(f"  {name}: {reason}" for name, reason in last)
