"""The plan of a run before it starts: what it holds, computes, moves and takes, on each GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from arlow_trainer.config import ArlowPretrain, Modality, known_set_size, total_steps
from arlow_trainer.config.errors import DeviceMemoryError
from arlow_trainer.plan.attention import Kernel, kernels_by_modality
from arlow_trainer.plan.choice import MicroBatchChoice, choose_micro_batch
from arlow_trainer.plan.compilation import plain_because
from arlow_trainer.plan.flops import FORWARD_AND_BACKWARD, forward_flops
from arlow_trainer.plan.hardware import Hardware
from arlow_trainer.plan.host import (
    WRITE_BYTES_PER_S,
    Compiling,
    HostMemory,
    StartSeconds,
    checkpoint_bytes,
    checkpoint_copy_seconds,
    compiling,
    data_bytes,
    decoding_cores,
    host_memory,
    start_seconds,
)
from arlow_trainer.plan.micro_batches import Sizes, drawn_sizes
from arlow_trainer.plan.parameters import decoder_parameters, tower_parameters
from arlow_trainer.plan.speed import StepTime, communicated_bytes, step_time
from arlow_trainer.plan.tokens import Tokens, tokens_per_clip, tokens_per_image


@dataclass(frozen=True)
class SampleFlops:
    """Operations of training on one sample, forward and backward."""

    encoder: int
    decoder: int


@dataclass(frozen=True)
class DevicePlan:
    """A run on GPUs of one kind.

    Attributes:
        gpu: its name in the hardware table.
        gpus: how many, on all nodes.
        measured: whether its speed was measured on such a chip, or else is estimated.
        choice: the micro-batch.
        kernels: of attention, by modality.
        plain_because: why blocks are not compiled; None where they are.
        compiling: what that takes at a first start; None where they are not.
        seconds: of an average step.
        images_per_second, clips_per_second: over all GPUs.
        utilization: model FLOPs over the peak (MFU).
        communicated_bytes: that each GPU sends in a step, for gradients and for weights.
        data_bytes_per_second: that the store of the data must give.
        decoding_cores: of a node.
        checkpoint_copy_seconds: for which each is copied to the host, beside a step.
        checkpoint_stall_seconds: of these, for which training waits.
        checkpoint_bytes_per_second: that the store must take for a save to end before the next.
        total_seconds: to the end, checkpoints included; None where the data's size is not known.
    """

    gpu: str
    gpus: int
    measured: bool
    choice: MicroBatchChoice
    memory_bytes: int
    link: str
    kernels: dict[Modality, Kernel]
    plain_because: str | None
    compiling: Compiling | None
    seconds: StepTime
    images_per_second: float
    clips_per_second: float
    utilization: float
    communicated_bytes: int
    data_bytes_per_second: float
    decoding_cores: float
    checkpoint_copy_seconds: float
    checkpoint_stall_seconds: float
    checkpoint_bytes_per_second: float
    total_seconds: float | None


@dataclass(frozen=True)
class Unfit:
    """GPUs that a run cannot use, and why."""

    gpu: str
    gpus: int
    reason: str


@dataclass(frozen=True)
class RunPlan:
    """A run, and what it takes on each kind of GPU.

    Attributes:
        images, clips: of an average step.
        steps: of the whole run; None where the data's size is not known.
        checkpoints: that are saved until the end.
        checkpoint_bytes: of one.
        kept_checkpoints: in the store at the end.
        save_seconds: of a checkpoint on a local disk; it runs beside training.
        start: from a kill to the next step, with checkpoints on a local disk.
        host: memory of a node.
    """

    name: str
    precision: str
    tower_parameters: int
    decoder_parameters: int
    image_flops: SampleFlops
    clip_flops: SampleFlops
    images: float
    clips: float
    steps: int | None
    checkpoints: int | None
    checkpoint_bytes: int
    kept_checkpoints: int | None
    save_seconds: float
    start: StartSeconds
    host: HostMemory
    devices: tuple[DevicePlan | Unfit, ...]

    @property
    def step_flops(self) -> float:
        """Operations of an average step over all devices."""
        image, clip = self.image_flops, self.clip_flops
        return self.images * (image.encoder + image.decoder) + self.clips * (
            clip.encoder + clip.decoder
        )


def plan_run(run: ArlowPretrain, hardware: Sequence[Hardware]) -> RunPlan:
    """Returns the plan of a run on its nodes, with each of these GPUs."""
    training, spec = run.spec.training, run.spec
    set_size = known_set_size(run)
    known = set_size is not None or training.data.repeat
    steps = total_steps(run, set_size or 0) if known else None
    clips = spec.global_batch_size * training.data.video_probability
    checkpoints = kept = None
    if steps is not None:
        every, keep_every = spec.checkpoint.every_steps, spec.checkpoint.keep_every
        checkpoints = -(-steps // every) if every else 1
        kept = min(checkpoints, spec.checkpoint.keep_last)
        if keep_every and every:
            kept = min(checkpoints, kept + steps // keep_every)
    plan = RunPlan(
        name=run.metadata.name,
        precision=training.precision,
        tower_parameters=tower_parameters(training.model),
        decoder_parameters=decoder_parameters(training.model, training.mae),
        image_flops=_flops(run, tokens_per_image(training)),
        clip_flops=_flops(run, tokens_per_clip(training)),
        images=spec.global_batch_size - clips,
        clips=clips,
        steps=steps,
        checkpoints=checkpoints,
        checkpoint_bytes=checkpoint_bytes(run),
        kept_checkpoints=kept,
        save_seconds=checkpoint_bytes(run) / WRITE_BYTES_PER_S,
        start=start_seconds(run),
        host=host_memory(run, spec.nodes.gpus or spec.nodes.ranks),
        devices=(),
    )
    devices = tuple(_on(run, plan, each) for each in hardware)
    return RunPlan(**{**plan.__dict__, "devices": devices})


def _on(run: ArlowPretrain, plan: RunPlan, hardware: Hardware) -> DevicePlan | Unfit:
    training, gpus = run.spec.training, run.spec.nodes.devices
    if training.precision not in hardware.peak_flops:
        return Unfit(hardware.name, gpus, f"has no {training.precision}")
    try:
        choice = choose_micro_batch(run, gpus, hardware.memory_bytes, hardware)
    except DeviceMemoryError as error:
        return Unfit(hardware.name, gpus, str(error))
    sizes: dict[Modality, Sizes] = {"image": choice.image_sizes, "video": choice.clip_sizes}
    seconds = step_time(run, gpus, hardware, sizes, choice.graphs.by_modality)
    step = seconds.total
    copy = checkpoint_copy_seconds(run, hardware.link.host_bytes_per_second)
    # Only the next update waits for it.
    stall = max(0.0, copy - seconds.images - seconds.clips - seconds.reduce)
    every = run.spec.checkpoint.every_steps or plan.steps or 1
    images, clips = plan.images / step, plan.clips / step
    total = None
    if plan.steps is not None and plan.checkpoints is not None:
        total = plan.steps * step + plan.checkpoints * stall
    capability = hardware.chip.compute_capability
    plain = plain_because(training.compile, capability)
    shapes = sum(map(len, drawn_sizes(training, sizes).values()))
    ranks = run.spec.nodes.gpus or run.spec.nodes.ranks
    return DevicePlan(
        gpu=hardware.name,
        gpus=gpus,
        measured=hardware.chip.measured,
        choice=choice,
        memory_bytes=hardware.memory_bytes,
        link=hardware.link.name,
        kernels=kernels_by_modality(training, capability),
        plain_because=plain,
        compiling=None if plain else compiling(run, shapes, ranks),
        seconds=seconds,
        images_per_second=images,
        clips_per_second=clips,
        utilization=plan.step_flops / step / gpus / hardware.peak_flops[training.precision],
        communicated_bytes=2 * communicated_bytes(training, gpus),
        data_bytes_per_second=data_bytes(images, clips),
        decoding_cores=decoding_cores(images, clips) / run.spec.nodes.count,
        checkpoint_copy_seconds=copy,
        checkpoint_stall_seconds=stall,
        checkpoint_bytes_per_second=plan.checkpoint_bytes / (every * step),
        total_seconds=total,
    )


def _flops(run: ArlowPretrain, tokens: Tokens) -> SampleFlops:
    forward = forward_flops(run.spec.training, tokens)
    return SampleFlops(
        encoder=FORWARD_AND_BACKWARD * (forward.total - forward.decoder),
        decoder=FORWARD_AND_BACKWARD * forward.decoder,
    )
