"""What decoding processes do: jobs of few samples, decoded into slots of shared memory.

A slot is written by one process, copied out by the rank, and used again: fresh shared memory for
every batch would cost its page faults and a passed file descriptor, a tenth of the decoding.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from multiprocessing import resource_tracker
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset

from arlow_trainer.config import DataSection
from arlow_trainer.config.errors import ArlowError, DataError

from .augment import Pixels, random_view
from .choice import Choice, Modality, choose
from .decode import decode_clip, decode_image
from .sample import BrokenSample, Source

# Small enough to share a step among the processes, large enough to hide a job's overhead.
_FRAMES_PER_JOB = 16
_NAMED_IN_ERRORS = 5


class Job(NamedTuple):
    """Samples of one modality to decode into a slot."""

    slot: int
    choices: tuple[Choice, ...]


class Decoded(NamedTuple):
    """A job done: the broken files met on the way, by name, or why it failed."""

    job: Job
    broken: dict[str, str]
    failure: ArlowError | None


class Decoder(Dataset[Decoded]):
    """Decodes jobs into its slots; copied to every decoding process, with the slots shared."""

    def __init__(
        self, data: DataSection, sources: Mapping[Modality, Source], seed: int, slots: int
    ) -> None:
        self._data = data
        self._sources = dict(sources)
        self._sizes = {modality: len(source) for modality, source in sources.items()}
        self._seed = seed
        self._most = {m: max(1, _FRAMES_PER_JOB // self._length(m)) for m in sources}
        frames = max(self._most[m] * self._length(m) for m in sources)
        self.slots = torch.empty((slots, frames, *self.frame_shape), dtype=torch.uint8)

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a frame."""
        return self._data.image_size, self._data.image_size, 3

    def choose(self, index: int, attempt: int = 0) -> Choice:
        """Returns the sample of a global index, or a replacement."""
        return choose(self._seed, index, self._sizes, self._data.video_probability, attempt)

    def cut(self, choices: Sequence[Choice]) -> list[tuple[Choice, ...]]:
        """Cuts a hand into jobs' choices; an empty hand into one empty job."""
        jobs = []
        for modality, group in groupby(choices, key=lambda choice: choice.modality):
            run = tuple(group)
            most = self._most[modality]
            jobs += [run[start : start + most] for start in range(0, len(run), most)]
        return jobs or [()]

    def frames_of(self, job: Job) -> torch.Tensor:
        """Returns a job's place in its slot: uint8 [B, T, H, W, 3]."""
        length = self._length(job.choices[0].modality) if job.choices else 1
        frames = self.slots[job.slot, : len(job.choices) * length]
        return frames.view(len(job.choices), length, *self.frame_shape)

    def __getitem__(self, job: Job) -> Decoded:
        broken: dict[str, str] = {}
        pixels = self.frames_of(job).numpy()
        try:
            for place, choice in enumerate(job.choices):
                pixels[place] = self._decode(choice, broken)
        except ArlowError as error:
            # As a value: an exception would arrive wrapped in this process's traceback.
            return Decoded(job, broken, error)
        return Decoded(job, broken, None)

    def _decode(self, choice: Choice, broken: dict[str, str]) -> Pixels:
        """Decodes a sample, or the first of its replacements that is not broken."""
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
    """Returns the next job done. Raises what it failed with, or DataError for a dead process."""
    try:
        done = next(decoded)
    except RuntimeError as error:
        # Not "Caught RuntimeError in DataLoader worker process": that one lives, and says why.
        if "DataLoader worker (pid" not in str(error):
            raise
        raise DataError(
            f"a decoding process died: {error}; most often the machine's memory or /dev/shm is "
            "too small: lower data.workers, or give the machine or pod more of it"
        ) from error
    if done.failure is not None:
        raise done.failure
    return done


def too_many_broken(broken: Mapping[str, str], allowed: int) -> DataError:
    """Returns what to tell the user when the broken files are too many to skip."""
    return DataError(
        f"{len(broken)} files cannot be decoded, more than {allowed}; the last:\n"
        f"{_last_named(broken)}\nRepair or remove them, or raise data.maxSkipped"
    )


def _last_named(broken: Mapping[str, str]) -> str:
    last = list(broken.items())[-_NAMED_IN_ERRORS:]
    return "\n".join(f"  {name}: {reason}" for name, reason in last)


@contextmanager
def held_signals() -> Iterator[None]:
    """Holds back SIGTERM and Ctrl-C from processes started meanwhile, for as long as they live.

    A process takes seconds to reach `settle_worker`; a signal to the whole group would end it.
    """
    # Started along with the first process, the tracker would lift the block from this thread.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def settle_worker(_: int) -> None:
    """Leaves signals to the rank, and ends this process when the rank is gone, however it went."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    # Pillow warns of every odd header, from every process; what cannot be decoded is named anyway.
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def end_workers(decoded: Any) -> None:
    """Ends a DataLoader iterator's processes, if it has any, and waits for them."""
    if not hasattr(decoded, "_shutdown_workers"):
        return
    decoded._shutdown_workers()
    for worker in decoded._workers:
        if worker.is_alive():
            worker.kill()
            worker.join()
