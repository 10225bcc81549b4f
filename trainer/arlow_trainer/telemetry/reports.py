"""What the trainer tells telemetry: plain values, already on the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from arlow_trainer.config.status import LastCheckpoint

STEP_PHASES = ("data", "forward", "backward", "reduce", "optimizer", "checkpoint")
"""What a step's time is spent on; `data` is the wait for the loader, `reduce` the gradients'
communication."""

LogFormat = Literal["auto", "json", "text"]


@dataclass(frozen=True, slots=True)
class Readout:
    """What was read from the device at the logging interval; None is not applicable.

    `overflows` counts since the run's start, `skipped_samples` since the process's, both over all
    ranks.
    `grad_norm` is the step's own, `grad_norm_max` the largest since the last read-out (None: every
    step since was lost). `rank_skew_seconds` is the slowest rank's forward and backward time of the
    step less the fastest one's; `max_attention_logit` is that of one sample, `gpu_memory_bytes`
    that of one rank.
    """

    loss: float
    learning_rate: float
    grad_norm: float
    image_loss: float | None = None
    video_loss: float | None = None
    loss_scale: float | None = None
    overflows: int = 0
    grad_norm_max: float | None = None
    max_attention_logit: float | None = None
    rank_skew_seconds: float | None = None
    gpu_memory_bytes: float | None = None
    skipped_samples: int | None = None


@dataclass(frozen=True, slots=True)
class StepReport:
    """One optimisation step: `seconds` of wall time; samples, tokens and FLOPs over all ranks.

    `flops` are model FLOPs: what the visible tokens and the decoder need, recomputation not
    counted. `phase_seconds` is keyed by `STEP_PHASES`.
    """

    step: int
    total_steps: int
    seconds: float
    images: int
    clips: int
    tokens: int
    flops: float
    phase_seconds: Mapping[str, float] = field(default_factory=dict)
    readout: Readout | None = None


@dataclass(frozen=True, slots=True)
class CheckpointReport:
    """A committed checkpoint: seconds from capture to commit, of which the step waited some."""

    step: int
    uri: str
    seconds: float
    bytes: int
    stall_seconds: float


@dataclass(frozen=True, slots=True)
class Resumed:
    """Where a run goes on from: its newest valid checkpoint, with the loss and overflows so far."""

    checkpoint: LastCheckpoint
    total_steps: int
    loss: float | None
    overflows: int


@dataclass(frozen=True, slots=True)
class TelemetryOptions:
    """Where telemetry goes, and what the run trains on: `device` by name, in `precision`.

    `peak_flops` is the peak FLOP/s of all the run's devices together.

    The callables are the store's. `publish_status` is handed the status as JSON at most every
    15 s, and `append_history` the new lines of `history.jsonl`, both on a thread of their own;
    `record_event(kind, **fields)` is called where something happens and must not block.
    """

    port: int | None = None
    live: bool = False
    log_format: LogFormat = "auto"
    device: str = "cpu"
    precision: str = "fp32"
    peak_flops: float | None = None
    publish_status: Callable[[bytes], None] | None = None
    append_history: Callable[[list[dict[str, Any]]], None] | None = None
    record_event: Callable[..., None] | None = None
