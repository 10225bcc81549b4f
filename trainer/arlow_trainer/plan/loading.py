"""What the loader holds of its node's memory; the loader takes its bounds from here."""

from __future__ import annotations

from dataclasses import dataclass

from arlow_trainer.config import DataSection
from arlow_trainer.plan.parameters import CHANNELS

FRAMES_A_JOB = 16
"""Of a decoding process's job: small enough to divide a step among the processes, large enough that
a job's overhead is small."""
JOBS_AHEAD = 3
"""Of each decoding process."""
STEPS_AHEAD, BYTES_AHEAD = 4, 2**30
"""Steps that are gathered ahead on a rank, and the bytes of all; one is, whatever its bytes."""
# Beside those ahead: the one that is being gathered, the one that the rank computes on, and for a
# moment the one before it.
_OTHER_STEPS = 3
_ROUND = 2**20


@dataclass(frozen=True)
class LoaderMemory:
    """Bytes that a rank's loader holds.

    Attributes:
        slots: of /dev/shm, which decoding processes decode into.
        buffers: that steps are gathered in, page-locked where there is a GPU.
    """

    slots: int
    buffers: int


def loader_memory(data: DataSection, workers: int, images: float, clips: float) -> LoaderMemory:
    """Returns what a rank holds that has `workers` decoding processes.

    `images` and `clips` are those of its share of an average step.
    """
    frame = data.image_size**2 * CHANNELS
    lengths = [length for length, drawn in _lengths(data) if drawn]
    job = max(job_samples(length) * length for length in lengths) * frame
    step = round((images + clips * data.clip_frames) * frame)
    ahead = max(1, min(STEPS_AHEAD, BYTES_AHEAD // max(1, step)))
    return LoaderMemory(
        slots=job * slots(workers), buffers=buffer_bytes(step) * (ahead + _OTHER_STEPS)
    )


def job_samples(length: int) -> int:
    """Returns the samples of a job, of so many frames each."""
    return max(1, FRAMES_A_JOB // length)


def slots(workers: int) -> int:
    """Returns the jobs that a rank has memory for: one more than are under way.

    The next is handed out before the last is copied.
    """
    return JOBS_AHEAD * workers + 1


def buffer_bytes(size: int) -> int:
    """Returns the bytes of a buffer for a step of `size` bytes.

    Steps differ by a few samples: with room to spare, the next one fits, too.
    """
    return -(-size * 9 // 8 // _ROUND) * _ROUND


def _lengths(data: DataSection) -> tuple[tuple[int, bool], tuple[int, bool]]:
    """Frames of an image and of a clip, and whether any are drawn."""
    return (1, data.video_probability < 1), (data.clip_frames, data.video_probability > 0)
