"""Which micro-batches have graphs: the one rule of the plan and of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from arlow_trainer.config import Modality, Precision, TrainingSection
from arlow_trainer.plan.hardware import Hardware
from arlow_trainer.plan.memory import NUMBER_BYTES, DeviceMemory, activation_bytes
from arlow_trainer.plan.micro_batches import Sizes
from arlow_trainer.plan.speed import device_seconds, launch_seconds
from arlow_trainer.plan.tokens import tokens_per_clip, tokens_per_image


@dataclass(frozen=True)
class GraphedSizes:
    """The sizes of micro-batches that have graphs.

    Attributes:
        images, clips: ascending.
        why: not more, or none, as a clause.
        memory: bytes that a device keeps for them.
    """

    images: tuple[int, ...]
    clips: tuple[int, ...]
    why: str
    memory: int

    @property
    def by_modality(self) -> dict[Modality, tuple[int, ...]]:
        """The sizes by modality."""
        return {"image": self.images, "video": self.clips}


def graphed_sizes(
    training: TrainingSection,
    sizes: Mapping[Modality, Sizes],
    hardware: Hardware | None,
    memory: DeviceMemory,
    usable: int,
    precision: Precision | None = None,
) -> GraphedSizes:
    """Returns the sizes that have graphs: those which a host takes longer to launch than a device
    to compute, the small ones first where not all fit.

    All graphs share the memory of the largest one's activations, which they keep beside those of
    the largest plain micro-batch; before they are used, they are tried beside a copy of the
    gradients.

    Args:
        training: the run's section.
        sizes: that micro-batches are computed in.
        hardware: the GPU; None for a CPU, or a GPU that the hardware table does not know.
        memory: what the device holds without graphs.
        usable: bytes of the device that a run may hold.
        precision: what the device trains in, where it is not the run's own.
    """
    if hardware is None:
        return GraphedSizes((), (), "not a GPU of the hardware table", 0)
    if training.gradient_checkpointing:
        return GraphedSizes((), (), "activations are recomputed", 0)
    number = NUMBER_BYTES[precision or training.precision]
    probability = training.data.video_probability
    launch = launch_seconds(training)
    waiting = sorted(
        (activation_bytes(training, tokens, size, number), modality, size)
        for modality, tokens, drawn in (
            ("image", tokens_per_image(training), probability < 1),
            ("video", tokens_per_clip(training), probability > 0),
        )
        for size in sizes[modality].sizes  # type: ignore[index]
        if drawn and device_seconds(training, tokens, hardware, size) < launch
    )
    if not waiting:
        return GraphedSizes((), (), "none is launched longer than it is computed", 0)
    # Of parameters and gradients one number each; a trial has no activations beside the copy.
    copy = max(0, memory.parameters - max(memory.activations, memory.update))
    chosen = [each for each in waiting if memory.total + copy + each[0] <= usable]
    why = "others are computed longer than they are launched"
    if len(chosen) < len(waiting):
        why = "no more fit beside the largest micro-batch"
    return GraphedSizes(
        tuple(size for _, modality, size in chosen if modality == "image"),
        tuple(size for _, modality, size in chosen if modality == "video"),
        why,
        copy + chosen[-1][0] if chosen else 0,
    )
