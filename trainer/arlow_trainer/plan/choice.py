"""The micro-batch that a device computes, and why it is this one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from arlow_trainer.config import ArlowPretrain, Precision
from arlow_trainer.config.errors import DeviceMemoryError
from arlow_trainer.plan.flops import image_training_flops
from arlow_trainer.plan.graphs import GraphedSizes, graphed_sizes
from arlow_trainer.plan.hardware import GIB, HARDWARE, Hardware
from arlow_trainer.plan.memory import (
    NUMBER_BYTES,
    RESERVE,
    DeviceMemory,
    activation_bytes,
    bytes_per_device,
    check_fits,
    device_share,
    largest_micro_batch,
)
from arlow_trainer.plan.micro_batches import Sizes, micro_batch_sizes
from arlow_trainer.plan.tokens import tokens_per_clip, tokens_per_image


@dataclass(frozen=True)
class MicroBatchChoice:
    """The micro-batch of a run on one kind of device.

    Attributes:
        images: of the largest micro-batch; clips count by their tokens.
        reason: why not more, as a clause.
        images_sizes, clips_sizes: what micro-batches are computed in.
        graphs: those of them that have graphs.
        memory: what the device holds at the peak of a step.
    """

    images: int
    reason: str
    image_sizes: Sizes
    clip_sizes: Sizes
    graphs: GraphedSizes
    memory: DeviceMemory


def saturating_images(run: ArlowPretrain, hardware: Hardware) -> int:
    """Returns the images of a micro-batch beyond which a device computes no faster."""
    flops = image_training_flops(run.spec.training)
    return max(1, round(hardware.chip.saturating_flops / flops))


def choose_micro_batch(
    run: ArlowPretrain,
    ranks: int,
    memory_bytes: int,
    hardware: Hardware | None = None,
    precision: Precision | None = None,
) -> MicroBatchChoice:
    """Returns the micro-batch that a device computes: the run's own, or as much as pays and fits.

    The run's own is refused only where not even a micro-batch of one fits into all of the memory:
    the model keeps a reserve, and whoever sets the size may know better.

    Args:
        run: the run.
        ranks: devices that share the optimiser's state.
        memory_bytes: what a device has for the run; for a CPU rank, `cpu_rank_memory`.
        hardware: the device, where it is known.
        precision: what the device trains in, where it is not the run's own.

    Raises:
        DeviceMemoryError: not even a micro-batch of one fits.
    """
    training = run.spec.training
    own = training.batch.micro_batch
    if own is not None:
        check_fits(run, ranks, memory_bytes, memory_bytes, precision)
        images, reason = own, "spec.training.batch.microBatch says so"
    else:
        most, reason = device_share(run, ranks), "a device's share of a step is no more"
        if hardware is not None and (pays := saturating_images(run, hardware)) < most:
            most, reason = pays, f"more is no faster on {hardware.name}"
        images = largest_micro_batch(run, ranks, memory_bytes, precision, most)
        if images < most:
            reason = f"no more fits into {memory_bytes / GIB:.1f} GiB"
    sizes = micro_batch_sizes(training, run.spec.global_batch_size, ranks, images)
    kinds = (
        (tokens_per_image(training), sizes["image"], training.data.video_probability < 1),
        (tokens_per_clip(training), sizes["video"], training.data.video_probability > 0),
    )
    activations = max(
        activation_bytes(
            training, tokens, of.sizes[-1], NUMBER_BYTES[precision or training.precision]
        )
        for tokens, of, drawn in kinds
        if drawn
    )
    memory = replace(bytes_per_device(run, ranks, 1, precision), activations=activations)
    usable = int(memory_bytes * (1 - RESERVE))
    graphs = graphed_sizes(training, sizes, hardware, memory, usable, precision)
    memory = replace(memory, graphs=graphs.memory)
    return MicroBatchChoice(images, reason, sizes["image"], sizes["video"], graphs, memory)


def check_declared_gpus(run: ArlowPretrain) -> None:
    """Checks that a run fits the GPUs that it declares, where no device is at hand.

    Does nothing without `nodes.gpuProduct`. Raises DeviceMemoryError.
    """
    nodes = run.spec.nodes
    if nodes.gpus and nodes.gpu_product:
        hardware = HARDWARE[nodes.gpu_product]
        choose_micro_batch(run, nodes.devices, hardware.memory_bytes, hardware)


def fits_no_gpu(run: ArlowPretrain) -> str | None:
    """Returns why a run cannot fit as many GPUs as it declares, of any kind of the hardware table.

    None where it fits the largest, or declares none. More GPUs, or larger ones that the table does
    not know, may hold it.
    """
    nodes = run.spec.nodes
    if not nodes.gpus:
        return None
    largest = max(HARDWARE.values(), key=lambda hardware: hardware.memory_bytes)
    try:
        choose_micro_batch(run, nodes.devices, largest.memory_bytes, largest)
    except DeviceMemoryError as error:
        return f"{nodes.devices} x {largest.name}, the largest GPU known: {error}"
    return None
