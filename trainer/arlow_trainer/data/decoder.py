"""Decoding in processes: jobs of samples, into slots of memory that all of them share."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch.utils.data import Dataset

from arlow_trainer.config import DataSection, Modality
from arlow_trainer.config.errors import ArlowError, DataError
from arlow_trainer.data.decode import BrokenSample, Source, decode_image
from arlow_trainer.data.order import Choice, choose
from arlow_trainer.data.video import decode_clip
from arlow_trainer.data.views import Pixels, random_view
from arlow_trainer.data.worker_processes import worker_died
from arlow_trainer.plan.loading import job_samples

_NAMED_IN_ERRORS = 5


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
        self.most_skipped = data.most_skipped(sum(self._sizes.values()))
        self._seed = seed
        self._job_sizes = {m: job_samples(self._length(m)) for m in sources}
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

    def sample_shape(self, modality: Modality) -> tuple[int, int, int, int]:
        """Returns a sample's frames, height, width and channels."""
        return self._length(modality), *self.frame_shape

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
        for attempt in range(min(self._sizes[choice.modality], self.most_skipped + 1)):
            try:
                return self._view(self.choose(choice.index, attempt) if attempt else choice)
            except BrokenSample as error:
                met[error.name] = broken[error.name] = error.reason
        if len(met) > self.most_skipped:
            raise too_many_broken(met, self.most_skipped)
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


def receive(decoded: Iterator[Decoded], ending: threading.Event) -> Decoded:
    """Returns the next finished job. Raises what it failed with.

    For a dead decoding process that is ProcessKilled where memory ran out, DataError where it
    crashed; Ended when `ending` is set while it waits.
    """
    while True:
        try:
            done = next(decoded)
        except RuntimeError as error:
            # Not "Caught RuntimeError in DataLoader worker process": that is a live process's.
            if "DataLoader timed out" in str(error):
                if ending.is_set():
                    raise Ended from None
                continue
            if "DataLoader worker (pid" not in str(error):
                raise
            raise worker_died(decoded) from error
        if done.failure is not None:
            raise done.failure
        return done


class Ended(Exception):
    """The loader ends, and nobody waits for its next step."""


def too_many_broken(broken: Mapping[str, str], allowed: int) -> DataError:
    """Returns the error to raise when the broken files are too many to skip."""
    return DataError(
        f"{len(broken)} files cannot be decoded, more than {allowed}; the last:\n"
        f"{_last_named(broken)}\nRepair or remove them, or raise data.maxSkipped"
    )


def _last_named(broken: Mapping[str, str]) -> str:
    last = list(broken.items())[-_NAMED_IN_ERRORS:]
    return "\n".join(f"  {name}: {reason}" for name, reason in last)
