"""A plan as tables, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from pydantic.alias_generators import to_camel

from arlow_trainer.plan.hardware import GIB
from arlow_trainer.plan.host import Compiling
from arlow_trainer.plan.run_plan import DevicePlan, RunPlan, SampleFlops, Unfit

Table = list[tuple[str, ...]]
"""Rows of equal length, the first the header."""


def to_json(plan: RunPlan) -> str:
    """Returns all of a plan: bytes, seconds, FLOP and what is made of them, in camelCase."""
    whole = asdict(plan)
    for shown, device in zip(whole["devices"], plan.devices, strict=True):
        if isinstance(device, DevicePlan):
            shown["seconds"]["total"] = device.seconds.total
            shown["choice"]["memory"]["total"] = device.choice.memory.total
    whole["host"] |= {"total": plan.host.total, "locked": plan.host.locked}
    whole["start"]["total"] = plan.start.total
    whole["step_flops"] = plan.step_flops
    return json.dumps(_camel(whole), indent=2)


def run_table(plan: RunPlan) -> Table:
    """Returns what does not depend on the GPU."""
    host, start = plan.host, plan.start
    unknown = "unknown before the data is opened"
    return [
        ("the run", plan.name),
        ("parameters", f"{_billions(plan.tower_parameters)} tower, "
                       f"{_billions(plan.decoder_parameters)} decoder, in {plan.precision}"),
        ("an image, forward and backward", _flops(plan.image_flops)),
        ("a clip, forward and backward", _flops(plan.clip_flops)),
        ("a step", f"{plan.images:,.0f} images and {plan.clips:,.0f} clips on average, "
                   f"{plan.step_flops / 1e12:,.0f} TFLOP"),
        ("steps", unknown if plan.steps is None else f"{plan.steps:,}"),
        ("a checkpoint", f"{plan.checkpoint_bytes / 1e9:.1f} GB; saved in "
                         f"{_duration(plan.save_seconds)} beside training, on a local disk"),
        ("checkpoints to the end", unknown if plan.checkpoints is None else
         f"{plan.checkpoints:,}, of which {plan.kept_checkpoints:,} are kept: "
         f"{(plan.kept_checkpoints or 0) * plan.checkpoint_bytes / 1e9:,.0f} GB in the store"),
        ("from a kill to the next step", f"{_duration(start.total)} (estimated): imports and the "
         f"checkpoint's check {start.imports:.0f} s, model {start.model:.0f} s, restore "
         f"{start.restore:.0f} s, data and first step {start.data + start.first_step:.0f} s"),
        ("memory of a node", f"{_gib(host.total)} of {_gib(host.available)}"),
        ("- ranks, with decoding processes", f"{_gib(host.processes)}, "
                                             f"{host.decoding_processes} a rank"),
        ("- /dev/shm", _gib(host.shared)),
        ("- steps ahead, page-locked", _gib(host.steps)),
        ("- copy of a checkpoint, page-locked", _gib(host.checkpoint)),
    ]  # fmt: skip


def device_table(devices: Sequence[DevicePlan]) -> Table:
    """Returns a column for each kind of GPU."""
    rows: list[tuple[str, Callable[[DevicePlan], str]]] = [
        ("GPUs", lambda d: f"{d.gpus} x {d.gpu}{'' if d.measured else ' (estimated)'}"),
        ("micro-batch, images", lambda d: f"{d.choice.images}: {d.choice.reason}"),
        ("computed in, images", lambda d: _sizes(d.choice.image_sizes.sizes)),
        ("computed in, clips", lambda d: _sizes(d.choice.clip_sizes.sizes)),
        ("graphs, images", lambda d: _graphed(d.choice.graphs.images, d.choice.graphs.why)),
        ("graphs, clips", lambda d: _graphed(d.choice.graphs.clips, d.choice.graphs.why)),
        ("attention, images", lambda d: d.kernels["image"]),
        ("attention, clips", lambda d: d.kernels["video"]),
        ("blocks", lambda d: (d.plain_because and f"plain: {d.plain_because}") or "compiled"),
        ("- compiled at a first start", lambda d: _compiling(d.compiling)),
        (
            "- a node's memory meanwhile",
            lambda d: (d.compiling and _gib(d.compiling.host_bytes)) or "-",
        ),
        ("memory of a GPU", lambda d: f"{_gib(d.choice.memory.total)} of {_gib(d.memory_bytes)}"),
        ("- weights", lambda d: _gib(d.choice.memory.parameters)),
        ("- gradients", lambda d: _gib(d.choice.memory.gradients)),
        ("- optimiser's state", lambda d: _gib(d.choice.memory.optimizer)),
        ("- reduction bucket", lambda d: _gib(d.choice.memory.buffers)),
        ("- graphs", lambda d: _gib(d.choice.memory.graphs)),
        ("- activations, or", lambda d: _gib(d.choice.memory.activations)),
        ("- the update's copies", lambda d: _gib(d.choice.memory.update)),
        ("a step", lambda d: _seconds(d.seconds.total)),
        ("- images", lambda d: _seconds(d.seconds.images)),
        ("- clips", lambda d: _seconds(d.seconds.clips)),
        (
            "- gradients' reduction",
            lambda d: (
                f"{_seconds(d.seconds.reduce)}, and "
                f"{_seconds(d.seconds.hidden)} beside the backward"
            ),
        ),
        ("- update", lambda d: _seconds(d.seconds.update)),
        ("- weights' gathering", lambda d: _seconds(d.seconds.gather)),
        ("sent by a GPU in a step", lambda d: f"{d.communicated_bytes / 1e9:.2f} GB, {d.link}"),
        ("images/s", lambda d: f"{d.images_per_second:,.1f}"),
        ("clips/s", lambda d: f"{d.clips_per_second:,.1f}"),
        ("MFU", lambda d: f"{d.utilization:.1%}"),
        ("cores to decode", lambda d: f"{d.decoding_cores:,.1f} a node"),
        ("data from the store", lambda d: f"{d.data_bytes_per_second / 1e6:,.0f} MB/s"),
        ("checkpoints to the store", lambda d: f"{d.checkpoint_bytes_per_second / 1e6:,.0f} MB/s"),
        ("a checkpoint's copy, beside a step", lambda d: _seconds(d.checkpoint_copy_seconds)),
        ("- of it training waits", lambda d: _seconds(d.checkpoint_stall_seconds)),
        ("to the end", lambda d: _duration(d.total_seconds)),
    ]
    return [(label, *(show(device) for device in devices)) for label, show in rows]


def comparison(plan: RunPlan) -> Table:
    """Returns a row for each kind of GPU."""
    header = ("GPUs", "memory", "micro-batch", "step", "images/s", "clips/s", "MFU", "to the end")
    rows: Table = [header]
    for each in plan.devices:
        if isinstance(each, Unfit):
            rows.append((f"{each.gpus} x {each.gpu}", each.reason, *[""] * 6))
            continue
        memory = f"{_gib(each.choice.memory.total)} of {_gib(each.memory_bytes)}"
        rows.append(
            (
                f"{each.gpus} x {each.gpu}{'' if each.measured else ' (estimated)'}",
                memory,
                str(each.choice.images),
                _seconds(each.seconds.total),
                f"{each.images_per_second:,.0f}",
                f"{each.clips_per_second:,.0f}",
                f"{each.utilization:.1%}",
                _duration(each.total_seconds),
            )
        )
    return rows


def as_text(table: Table) -> str:
    """Returns a table as aligned columns; what is wider than its column's first cells runs on."""
    widths = [
        max(len(row[i]) for row in table if any(row[i + 1 :])) for i in range(len(table[0]) - 1)
    ]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip()
        for row in table
    )


def as_markdown(table: Table) -> str:
    """Returns a table in Markdown."""
    header, *rows = table
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _camel(value: Any) -> Any:
    if isinstance(value, dict):
        return {to_camel(key): _camel(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_camel(item) for item in value]
    return value


def _flops(flops: SampleFlops) -> str:
    whole = flops.encoder + flops.decoder
    encoder, decoder = flops.encoder / whole, flops.decoder / whole
    return f"{whole / 1e12:.3g} TFLOP: {encoder:.0%} encoder, {decoder:.0%} decoder"


def _compiling(compiling: Compiling | None) -> str:
    if compiling is None:
        return "none"
    return (
        f"{compiling.shapes} shapes, a wait of {compiling.least_seconds:.0f} to "
        f"{compiling.most_seconds:.0f} s (estimated)"
    )


def _sizes(sizes: tuple[int, ...]) -> str:
    return ", ".join(map(str, sizes))


def _graphed(sizes: tuple[int, ...], why: str) -> str:
    return f"{_sizes(sizes) or 'none'}: {why}"


def _billions(count: int) -> str:
    return f"{count / 1e9:.3f} B" if count >= 1e8 else f"{count / 1e6:.2f} M"


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours = seconds / 3600
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"
