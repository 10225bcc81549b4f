"""What a run needs of its node and of the stores: memory, /dev/shm, bandwidth, time to start."""

from __future__ import annotations

from dataclasses import dataclass

from arlow_trainer.config import ArlowPretrain
from arlow_trainer.config.cluster import size_bytes
from arlow_trainer.plan.memory import FLOAT32, NUMBER_BYTES
from arlow_trainer.plan.parameters import CHANNELS, total_parameters

NODE_MEMORY = 200 * 2**30
"""Memory of a node where the run does not say it."""
CORES_A_GPU = 8
"""Cores that a node is taken to have for each GPU where the run does not say it."""

# Resident memory of a rank with torch, DeepSpeed and a CUDA context, and of a decoding process.
_RANK_BYTES, _DECODER_BYTES = 4_000_000_000, 400_000_000
# What NCCL shares among the ranks of a node, for each.
_NCCL_SHARED_BYTES = 40_000_000
# The loader's: frames of a decoded job, and jobs ahead of each process (`data.loader`).
FRAMES_A_JOB, JOBS_AHEAD = 16, 3
# ImageNet's JPEGs and UCF101's videos, which are read whole.
_IMAGE_FILE_BYTES, _VIDEO_FILE_BYTES = 110_000, 490_000
# A core decodes, crops and resizes so many in a second.
_IMAGES_A_CORE, _CLIPS_A_CORE = 150.0, 15.0

# Measured with the full model, one rank and a local disk: imports and opening the data, building
# 1.64 B parameters, how much longer the first steps take, reading and checking a checkpoint, and
# writing one.
_START_S, _BUILD_PARAMETERS_PER_S, _FIRST_STEPS_S = 27.0, 55e6, 10.0
READ_BYTES_PER_S, WRITE_BYTES_PER_S = 0.47e9, 0.65e9


@dataclass(frozen=True)
class HostMemory:
    """Bytes of a node's memory.

    Attributes:
        processes: ranks and decoding processes.
        start: the models that ranks build before they move to their devices; gone afterwards.
        checkpoint: the copy of weights and optimiser state that is being saved.
        shared: of /dev/shm, for decoded samples and NCCL.
        available: what the node or the pod has.
    """

    processes: int
    start: int
    checkpoint: int
    shared: int
    available: int

    @property
    def total(self) -> int:
        """The peak: nothing is saved before the start is over."""
        return self.processes + self.shared + max(self.start, self.checkpoint)


def host_memory(run: ArlowPretrain, ranks: int) -> HostMemory:
    """Returns what the ranks of one node need of its memory."""
    training, nodes = run.spec.training, run.spec.nodes
    parameters = total_parameters(training)
    workers = decoding_processes(run, ranks)
    frame = training.data.image_size**2 * CHANNELS
    job = max(FRAMES_A_JOB, training.data.clip_frames) * frame
    return HostMemory(
        processes=ranks * (_RANK_BYTES + workers * _DECODER_BYTES),
        start=ranks * FLOAT32 * parameters,
        checkpoint=checkpoint_bytes(run),
        shared=ranks * (job * (JOBS_AHEAD * workers + 1) + _NCCL_SHARED_BYTES),
        available=size_bytes(nodes.memory) if nodes.memory else NODE_MEMORY,
    )


def decoding_processes(run: ArlowPretrain, ranks: int) -> int:
    """Returns the decoding processes of each rank of a node."""
    workers, cores = run.spec.training.data.workers, run.spec.nodes.cpu
    if workers is not None:
        return workers
    return max(1, int(cores / ranks)) if cores else CORES_A_GPU


def checkpoint_bytes(run: ArlowPretrain) -> int:
    """Returns the bytes of a checkpoint: masters and two moments, and the weights as trained."""
    training = run.spec.training
    each = 3 * FLOAT32 + NUMBER_BYTES[training.precision]
    return each * total_parameters(training)


def checkpoint_copy_seconds(run: ArlowPretrain, ranks: int, host_bytes_per_second: float) -> float:
    """Returns how long training waits for the copy of a checkpoint; rank 0 copies the most."""
    training = run.spec.training
    parameters = total_parameters(training)
    of_first = 3 * FLOAT32 * parameters / ranks + NUMBER_BYTES[training.precision] * parameters
    return of_first / host_bytes_per_second


def resume_seconds(run: ArlowPretrain) -> float:
    """Returns the seconds from a kill to the next step, with checkpoints on a local disk."""
    build = total_parameters(run.spec.training) / _BUILD_PARAMETERS_PER_S
    return _START_S + build + checkpoint_bytes(run) / READ_BYTES_PER_S + _FIRST_STEPS_S


def data_bytes(images: float, clips: float) -> float:
    """Returns the bytes of the files of so many samples, if they are ImageNet's and UCF101's."""
    return images * _IMAGE_FILE_BYTES + clips * _VIDEO_FILE_BYTES


def decoding_cores(images: float, clips: float) -> float:
    """Returns the cores that decode so many samples a second."""
    return images / _IMAGES_A_CORE + clips / _CLIPS_A_CORE
