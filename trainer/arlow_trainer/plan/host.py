"""What a run needs of its node and of the stores: memory, /dev/shm, bandwidth, time to start."""

from __future__ import annotations

from dataclasses import dataclass

from arlow_trainer.config import ArlowPretrain
from arlow_trainer.config.cluster import size_bytes
from arlow_trainer.plan.compilation import compile_workers
from arlow_trainer.plan.cores import share_cores
from arlow_trainer.plan.loading import loader_memory
from arlow_trainer.plan.memory import FLOAT32, NUMBER_BYTES
from arlow_trainer.plan.parameters import total_parameters

NODE_MEMORY = 200 * 2**30
"""Memory of a node where the run does not say it."""
CORES_A_RANK = 8
"""Cores that a node is taken to have for each rank where the run does not say it."""

# Resident memory of a rank with torch, DeepSpeed and a CUDA context, and of a decoding process.
_RANK_BYTES, _DECODER_BYTES = 4_000_000_000, 400_000_000
# Resident memory of one of inductor's processes: 0.22 to 0.3 GB were measured without Triton, whose
# compiler is an estimate.
_COMPILE_WORKER_BYTES = 400_000_000
# What NCCL shares among the ranks of a node, for each.
_NCCL_SHARED_BYTES = 40_000_000
# ImageNet's JPEGs and UCF101's videos, which are read whole.
_IMAGE_FILE_BYTES, _VIDEO_FILE_BYTES = 110_000, 490_000
# A core decodes, crops and resizes so many in a second: 16 cores made a step of 192 images and 64
# clips in 0.26 s. ImageNet's files are twice as large as those of docs/benchmarks.md.
_IMAGES_A_CORE, _CLIPS_A_CORE = 300.0, 18.0

# The parts of a start, seconds. Imports were measured on a machine with an H200. The others are
# estimates: DeepSpeed's import and set-up take 3 to 8 s on CPUs, and the first step of a process
# also loads kernels.
_IMPORTS_S, _DATA_S, _MODEL_S, _FIRST_STEP_S = 15.0, 0.5, 7.0, 5.0
# A shape's blocks, forward and backward: measured on an H200, each shape by itself.
_COMPILED_S = (5.0, 14.0)
# SHA-256 of one file, in one thread; `checkpoint.reader` checks several files at a time.
_CHECK_BYTES_PER_S = 1.7e9
# What was read for the check is read again from memory, by several threads.
_READ_AGAIN_BYTES_PER_S = 5e9
DISK_BYTES_PER_S, WRITE_BYTES_PER_S = 2e9, 0.65e9
"""A local disk reads so fast by assumption; an H200's node wrote a checkpoint at the other rate,
hashed."""


@dataclass(frozen=True)
class HostMemory:
    """Bytes of a node's memory.

    Attributes:
        processes: ranks and decoding processes.
        decoding_processes: of a rank.
        shared: of /dev/shm, for decoded samples and NCCL.
        steps: that loaders gathered ahead; page-locked.
        checkpoint: the copy of weights and optimiser state that saves are written from, on the node
            of rank 0; page-locked, and there from the first steps on.
        available: what the node or the pod has.
    """

    processes: int
    decoding_processes: int
    shared: int
    steps: int
    checkpoint: int
    available: int

    @property
    def total(self) -> int:
        """All of them at once."""
        return self.processes + self.shared + self.steps + self.checkpoint

    @property
    def locked(self) -> int:
        """The page-locked part, which the limit of locked memory counts (ulimit -l)."""
        return self.steps + self.checkpoint


def host_memory(run: ArlowPretrain, ranks: int) -> HostMemory:
    """Returns what the ranks of one node need of its memory."""
    training, nodes = run.spec.training, run.spec.nodes
    parameters = total_parameters(training)
    workers = decoding_processes(run, ranks)
    clips = run.spec.global_batch_size * training.data.video_probability / nodes.devices
    images = run.spec.global_batch_size / nodes.devices - clips
    loader = loader_memory(training.data, workers, images, clips)
    return HostMemory(
        processes=ranks * (_RANK_BYTES + workers * _DECODER_BYTES),
        decoding_processes=workers,
        shared=ranks * (loader.slots + _NCCL_SHARED_BYTES),
        steps=ranks * loader.buffers,
        checkpoint=ranks * _shard_bytes(run) + NUMBER_BYTES[training.precision] * parameters,
        available=size_bytes(nodes.memory) if nodes.memory else NODE_MEMORY,
    )


def decoding_processes(run: ArlowPretrain, ranks: int) -> int:
    """Returns the decoding processes of each rank of a node."""
    gpu, workers = run.spec.nodes.gpus > 0, run.spec.training.data.workers
    cores = _cores(run, ranks)
    return share_cores(cores, ranks, gpu=gpu, workers=workers, most_threads=None).workers


def _cores(run: ArlowPretrain, ranks: int) -> float:
    return run.spec.nodes.cpu or CORES_A_RANK * ranks


def checkpoint_bytes(run: ArlowPretrain) -> int:
    """Returns the bytes of a checkpoint: masters and two moments, and the weights as trained."""
    training = run.spec.training
    each = 3 * FLOAT32 + NUMBER_BYTES[training.precision]
    return each * total_parameters(training)


def checkpoint_copy_seconds(run: ArlowPretrain, host_bytes_per_second: float) -> float:
    """Returns how long a checkpoint is copied to the host; rank 0 copies the most."""
    training = run.spec.training
    weights = NUMBER_BYTES[training.precision] * total_parameters(training)
    return (_shard_bytes(run) + weights) / host_bytes_per_second


@dataclass(frozen=True)
class StartSeconds:
    """From a kill to the next step, with checkpoints on a local disk.

    Attributes:
        imports: and beside them reading and checking the checkpoint, whichever takes longer.
        data: opening it.
        model: building it on the device, and DeepSpeed's set-up.
        restore: reading masters and moments into it.
        first_step: the one that follows.
    """

    imports: float
    data: float
    model: float
    restore: float
    first_step: float

    @property
    def total(self) -> float:
        """One after another."""
        return self.imports + self.data + self.model + self.restore + self.first_step


def start_seconds(run: ArlowPretrain) -> StartSeconds:
    """Returns the seconds from a kill to the next step, with checkpoints on a local disk."""
    check = max(checkpoint_bytes(run) / DISK_BYTES_PER_S, _shard_bytes(run) / _CHECK_BYTES_PER_S)
    state = 3 * FLOAT32 * total_parameters(run.spec.training)
    return StartSeconds(
        imports=max(_IMPORTS_S, check),
        data=_DATA_S,
        model=_MODEL_S,
        restore=state / _READ_AGAIN_BYTES_PER_S,
        first_step=_FIRST_STEP_S,
    )


@dataclass(frozen=True)
class Compiling:
    """What compiling the blocks takes at a start whose cache does not have them.

    Attributes:
        shapes: of micro-batches; every rank compiles each of them.
        least_seconds, most_seconds: that the first step waits for it. A process of its own does it
            beside the rest of the start, once it has imported torch.
        host_bytes: of a node's memory until then: that process of each rank, and inductor's.
    """

    shapes: int
    least_seconds: float
    most_seconds: float
    host_bytes: int


def compiling(run: ArlowPretrain, shapes: int, ranks: int) -> Compiling:
    """Returns what compiling so many shapes takes on a node of `ranks` ranks, at a first start."""
    # No checkpoint is restored then.
    beside = _DATA_S + _MODEL_S
    least, most = (max(0.0, _IMPORTS_S + shapes * each - beside) for each in _COMPILED_S)
    workers = compile_workers(_cores(run, ranks), ranks)
    # Inductor starts its workers from one more process.
    rank = _RANK_BYTES + (workers + 1) * _COMPILE_WORKER_BYTES
    return Compiling(shapes, least, most, ranks * rank)


def data_bytes(images: float, clips: float) -> float:
    """Returns the bytes of the files of so many samples, if they are ImageNet's and UCF101's."""
    return images * _IMAGE_FILE_BYTES + clips * _VIDEO_FILE_BYTES


def decoding_cores(images: float, clips: float) -> float:
    """Returns the cores that decode so many samples a second."""
    return images / _IMAGES_A_CORE + clips / _CLIPS_A_CORE


def _shard_bytes(run: ArlowPretrain) -> int:
    """Returns the bytes of a rank's masters and moments."""
    return -(-3 * FLOAT32 * total_parameters(run.spec.training) // run.spec.nodes.devices)
