"""Steps of the full model on a GPU: images, clips, a whole step; memory, kernels and waits."""

from __future__ import annotations

import resource
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from arlow_trainer.config import ArlowPretrain, Modality
from arlow_trainer.data import MicroBatch
from arlow_trainer.engine import (
    Ranks,
    StepRunner,
    build_autoencoder,
    device_memory,
    device_name,
    effective_precision,
    initialize_engine,
    peak_flops,
)
from arlow_trainer.plan.choice import MicroBatchChoice, choose_micro_batch
from arlow_trainer.plan.flops import clip_training_flops, image_training_flops
from arlow_trainer.plan.hardware import GIB, Hardware, hardware_of_device
from arlow_trainer.plan.speed import micro_batch_seconds, step_time
from arlow_trainer.plan.tokens import tokens_per_clip, tokens_per_image

from .ranks import on_ranks
from .result import NOT_RUN, Result, milliseconds
from .samples import TOY_MICRO_BATCHES, build_run, noise
from .timing import WALL

TITLE = "Steps of the full model on a GPU"
STEPS = 1_000_000
WAITS = ("cudaDeviceSynchronize", "cudaStreamSynchronize", "cudaEventSynchronize")


@dataclass(frozen=True)
class Size:
    """What is measured: a preset with more said, micro-batches of images and of clips, a step."""

    preset: str = "arlow-vision-3072"
    training: Mapping[str, Any] = field(default_factory=dict)
    images: tuple[int, ...] = (24, 96, 192)
    clips: tuple[int, ...] = (8, 24)
    whole: tuple[int, int] = (192, 64)
    rounds: int = 5
    kernels: int = 10
    needs_gpu: bool = True


FULL = Size()
TOY = Size(**TOY_MICRO_BATCHES, whole=(3, 1), kernels=3)


@dataclass(frozen=True)
class Row:
    """Median seconds of a step of so many images and clips, and of its parts."""

    images: int
    clips: int
    step: float
    computing: float
    update: float
    planned: float | None


@dataclass(frozen=True)
class Measured:
    """What the process measured.

    `launches` and `waits` are those of one step; `kernels` those that took longest in it, with
    their calls and seconds.
    """

    device: str
    precision: str
    parameters: int
    rows: list[Row]
    peak: float | None
    memory: str
    attention: Mapping[Modality, str]
    plain: str | None
    launches: int
    waits: Mapping[str, int]
    kernels: list[tuple[str, int, float]]
    halved: list[str]


def measure(size: Size, progress: Callable[[str], None]) -> Result:
    """Measures all in one process."""
    if size.needs_gpu and not torch.cuda.is_available():
        return Result(TITLE, NOT_RUN)
    run = build_run(
        size.preset,
        {**size.training, "batch": {"globalSize": sum(size.whole)}},
        nodes={"gpus": 1},
    )
    progress(f"{size.preset}: images, clips, and a step of {sum(size.whole)} samples")
    got = on_ranks(1, _measure, run, size)
    training = run.spec.training
    flops = image_training_flops(training), clip_training_flops(training)
    rows = []
    for row in got.rows:
        work = row.images * flops[0] + row.clips * flops[1]
        used = "unknown" if got.peak is None else f"{work / row.step / got.peak:.1%}"
        rows.append(
            (
                " + ".join(
                    f"{count} {kind}"
                    for count, kind in ((row.images, "images"), (row.clips, "clips"))
                    if count
                ),
                milliseconds(row.step),
                milliseconds(row.computing),
                "-" if row.planned is None else milliseconds(row.planned),
                milliseconds(row.update),
                f"{(row.images + row.clips) / row.step:.1f}",
                used,
            )
        )
    waits = ", ".join(f"{count} {name}" for name, count in got.waits.items()) or "none counted"
    return Result(
        TITLE,
        f"`{size.preset}` in {got.precision} on {got.device}, {got.parameters / 1e6:,.1f} M "
        "parameters with its decoder, ZeRO-2 on one device, noise held in memory, medians of "
        f"{size.rounds} steps after two. The last row is cut into micro-batches as a run cuts it, "
        "the others are one micro-batch. MFU counts matrix products of the visible and the "
        "decoder's tokens over the whole step, against the data sheet's dense peak (on a CPU: "
        "against a matrix product's). Planned: `arlow plan`'s time of forward and backward.",
        ("a step", "time", "forward, backward", "planned", "update", "samples/s", "MFU"),
        rows,
        [
            got.memory,
            f"Attention: {got.attention['image']} for images, {got.attention['video']} for clips.",
            "Blocks are compiled." if got.plain is None else f"Blocks are plain: {got.plain}.",
            f"The last row's step launches {got.launches:,} kernels; it waits: {waits}.",
            "Its longest kernels: "
            + "; ".join(
                f"`{name[:60]}` {seconds * 1e3:.1f} ms in {calls:,} calls"
                for name, calls, seconds in got.kernels
            )
            + ".",
            *got.halved,
        ],
    )


def _measure(ranks: Ranks, run: ArlowPretrain, size: Size) -> Measured:
    training, device = run.spec.training, ranks.device
    precision = effective_precision(training.precision, device)
    hardware = hardware_of_device(device_name(device))
    choice = choose_micro_batch(run, 1, device_memory(device, 1), hardware, precision)
    module = build_autoencoder(training, device)
    parameters = sum(p.numel() for p in module.parameters())
    engine = initialize_engine(module, training, precision, device)
    halved: list[str] = []
    images, clips = size.whole
    work = [
        *([_noise(run, "image", count)] for count in size.images),
        *([_noise(run, "video", count)] for count in size.clips),
        [
            *(_noise(run, "image", count) for count in choice.image_sizes.cut(images)),
            *(_noise(run, "video", count) for count in choice.clip_sizes.cut(clips)),
        ],
    ]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    rows, number = [], 0
    for micro_batches in work:
        counts = {
            kind: sum(len(each.indexes) for each in micro_batches if each.modality == kind)
            for kind in ("image", "video")
        }
        runner = StepRunner(engine, training, sum(counts.values()), STEPS, on_warning=halved.append)
        taken = []
        for _ in range(size.rounds + 2):  # two to warm up
            taken.append(_timed(ranks, runner, number, micro_batches))
            number += 1
        step, computing, update = (median(part) for part in zip(*taken[2:], strict=True))
        planned = _planned(run, hardware, choice, micro_batches)
        rows.append(Row(counts["image"], counts["video"], step, computing, update, planned))
    launches, waits, kernels = _profiled(ranks, runner, number, work[-1], size.kernels)
    return Measured(
        device_name(device),
        precision,
        parameters,
        rows,
        peak_flops(device, precision),
        _memory(device, choice),
        runner.kernels,
        runner.blocks.plain_because,
        launches,
        waits,
        kernels,
        halved,
    )


def _noise(run: ArlowPretrain, modality: Modality, count: int) -> MicroBatch:
    pixels = noise(run.spec.training, modality, count)
    if torch.cuda.is_available():
        pixels = pixels.pin_memory()
    numbers = list(range(count))
    return MicroBatch(modality, pixels, mask_seeds=numbers, indexes=numbers)


def _timed(
    ranks: Ranks, runner: StepRunner, number: int, micro_batches: Sequence[MicroBatch]
) -> tuple[float, float, float]:
    """Runs a step; returns its seconds, those of forward and backward, and of the update."""
    runner.clock.collect(wait=True)
    start = WALL()
    runner.step(number, micro_batches)
    _wait(ranks)
    seconds = WALL() - start
    parts = runner.clock.collect(wait=True)
    return seconds, parts["forward"] + parts["backward"], parts["optimizer"]


def _planned(
    run: ArlowPretrain,
    hardware: Hardware | None,
    choice: MicroBatchChoice,
    micro_batches: Sequence[MicroBatch],
) -> float | None:
    if hardware is None:
        return None
    training = run.spec.training
    if len({each.modality for each in micro_batches}) > 1:
        sizes: dict[Modality, Any] = {"image": choice.image_sizes, "video": choice.clip_sizes}
        # Noise is timed once for all, by plain passes.
        planned = step_time(run, 1, hardware, sizes, {"image": (), "video": ()})
        return planned.images + planned.clips
    tokens = {"image": tokens_per_image(training), "video": tokens_per_clip(training)}
    return sum(
        micro_batch_seconds(training, tokens[each.modality], hardware, len(each.indexes))
        for each in micro_batches
    )


def _memory(device: torch.device, choice: MicroBatchChoice) -> str:
    planned = f"planned for the run's micro-batches {choice.memory.total / GIB:.1f} GiB"
    if device.type != "cuda":
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return f"Memory of the process at its peak {used / GIB:.1f} GiB, {planned}."
    stats = torch.cuda.memory_stats(device)
    return (
        f"Memory at its peak {torch.cuda.max_memory_allocated(device) / GIB:.1f} GiB allocated, "
        f"{torch.cuda.max_memory_reserved(device) / GIB:.1f} reserved, after "
        f"{stats['num_alloc_retries']} retries of the allocator and {stats['num_ooms']} refusals; "
        f"{planned}."
    )


def _profiled(
    ranks: Ranks,
    runner: StepRunner,
    number: int,
    micro_batches: Sequence[MicroBatch],
    most: int,
) -> tuple[int, dict[str, int], list[tuple[str, int, float]]]:
    """Returns the launches and waits of a step, and the kernels that take longest.

    Where there is no GPU those are torch's operations.
    """
    cuda = ranks.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as seen:
        runner.step(number, micro_batches)
        _wait(ranks)
    found = seen.key_averages()
    launches = sum(one.count for one in found if "LaunchKernel" in one.key)
    waits = {one.key: one.count for one in found if one.key in WAITS}
    spent = [
        (one.key, one.count, one.self_device_time_total if cuda else one.self_cpu_time_total)
        for one in found
    ]
    spent.sort(key=lambda one: -one[2])
    return launches, waits, [(name, count, us / 1e6) for name, count, us in spent[:most]]


def _wait(ranks: Ranks) -> None:
    if ranks.device.type == "cuda":
        torch.cuda.synchronize(ranks.device)
