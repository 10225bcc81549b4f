"""What the trainer reports, as plain values on the host, and the status that the reports add up to.

Pure: each update gives the next state, and a state gives its scalars and its `RunStatus`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from statistics import median
from typing import Any, Literal

from pydantic.alias_generators import to_camel

from arlow_trainer.config.status import LastCheckpoint, LossPoint, Phase, RunStatus
from arlow_trainer.telemetry.scalars import SCALARS, ScalarValues

RECENT_STEPS = 50
RECENT_LOSSES = 60

LogFormat = Literal["auto", "json", "text"]


@dataclass(frozen=True, slots=True)
class TelemetryOptions:
    """Where telemetry goes, and what the run trains on: `device` by name, in `precision`.

    `peak_flops` is the peak FLOP/s of all the run's devices together.

    The callables are the store's. `publish_status` is given the status as JSON at most every
    15 s, and `append_history` the new lines of `history.jsonl`, both on a thread of their own;
    `record_event(kind, **fields)` is called where something happens and must not block;
    `write_stacks()` has every process of the run write its stacks to the log.
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
    write_stacks: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class StepReport:
    """One optimisation step: `seconds` of wall time; samples, tokens and FLOPs over all ranks.

    `flops` are model FLOPs: what the visible tokens and the decoder need, recomputation not
    counted. `phase_seconds` is keyed by `STEP_PHASES`. `readout` is what was read from the device
    at the logging interval, keyed by `SCALARS`: `overflows` counts since the run's start,
    `skipped_samples` since the process's, both over all ranks.

    Raises ValueError for a number that has no row in the table.
    """

    step: int
    total_steps: int
    seconds: float
    images: int
    clips: int
    tokens: int
    flops: float
    phase_seconds: Mapping[str, float] = field(default_factory=dict)
    readout: ScalarValues | None = None

    def __post_init__(self) -> None:
        unknown = (self.readout or {}).keys() - SCALARS.keys()
        if unknown:
            raise ValueError(f"no row in telemetry/scalars.py: {', '.join(sorted(unknown))}")


@dataclass(frozen=True, slots=True)
class CheckpointReport:
    """A committed checkpoint: seconds from capture to commit, and how long the step waited."""

    step: int
    url: str
    seconds: float
    bytes: int
    stall_seconds: float


@dataclass(frozen=True, slots=True)
class ResumeReport:
    """The checkpoint that a run resumes from, with the loss and overflows up to it."""

    checkpoint: LastCheckpoint
    total_steps: int
    loss: float | None
    overflows: int


@dataclass(frozen=True, slots=True)
class PhaseChanged:
    """The run entered a phase."""

    phase: Phase
    message: str = ""


@dataclass(frozen=True, slots=True)
class StartReport:
    """The seconds of the parts of a start that are over, in order."""

    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Message:
    """Something a reader of the status should know."""

    text: str


StatusUpdate = PhaseChanged | Message | StartReport | ResumeReport | StepReport | CheckpointReport


@dataclass(frozen=True, slots=True)
class StatusState:
    """All that a run's status is made of. `peak_flops` is that of all devices together."""

    run: str
    started_at: datetime
    peak_flops: float | None = None
    phase: Phase = "starting"
    message: str = ""
    resumed: ResumeReport | None = None
    recent: tuple[StepReport, ...] = ()
    last_step_time: datetime | None = None
    readout: ScalarValues = field(default_factory=dict)
    losses: tuple[LossPoint, ...] = ()
    checkpoint: LastCheckpoint | None = None
    start_seconds: Mapping[str, float] = field(default_factory=dict)


def updated(state: StatusState, update: StatusUpdate, now: datetime) -> StatusState:
    """Returns the state after an update at `now` (UTC)."""
    match update:
        case StepReport():
            return _after_step(state, update, now)
        case PhaseChanged():
            return replace(state, phase=update.phase, message=update.message or state.message)
        case ResumeReport():
            readout = {"loss": update.loss}
            return replace(state, resumed=update, checkpoint=update.checkpoint, readout=readout)
        case CheckpointReport():
            checkpoint = LastCheckpoint(url=update.url, step=update.step, time=now)
            return replace(state, checkpoint=checkpoint)
        case StartReport():
            return replace(state, start_seconds=update.seconds)
        case Message():
            return replace(state, message=update.text)


def _after_step(state: StatusState, report: StepReport, now: datetime) -> StatusState:
    recent = (*state.recent[1 - RECENT_STEPS :], report)
    readout = report.readout
    if readout is None:
        return replace(state, recent=recent, last_step_time=now)
    losses, loss = state.losses, readout.get("loss")
    if loss is not None and math.isfinite(loss):
        losses = (*losses[1 - RECENT_LOSSES :], LossPoint(step=report.step, loss=loss))
    return replace(state, recent=recent, last_step_time=now, readout=readout, losses=losses)


def scalars_of(state: StatusState) -> ScalarValues:
    """Returns the last read-out's values and those that follow from the recent steps.

    The remaining time is the remaining steps at the median time of the recent ones, so that one
    slow step does not move it.
    """
    recent = state.recent
    if not recent:
        return state.readout
    last = recent[-1]
    seconds = sum(report.seconds for report in recent)
    step_seconds = median(report.seconds for report in recent)
    values = {**state.readout, "median_step_seconds": step_seconds}
    if state.phase not in ("stopped", "failed"):
        values["eta_seconds"] = max(0, last.total_steps - last.step) * step_seconds
    if seconds > 0:
        values["images_per_second"] = sum(report.images for report in recent) / seconds
        values["clips_per_second"] = sum(report.clips for report in recent) / seconds
        if state.peak_flops:
            flops = sum(report.flops for report in recent)
            values["model_flops_utilization"] = flops / seconds / state.peak_flops
    return values


def mean_phase_seconds(recent: tuple[StepReport, ...]) -> dict[str, float]:
    """Returns the seconds that a step spent in each phase, mean over the recent steps."""
    phases = dict.fromkeys(phase for report in recent for phase in report.phase_seconds)
    return {
        phase: sum(report.phase_seconds.get(phase, 0.0) for report in recent) / len(recent)
        for phase in phases
    }


def status_of(state: StatusState) -> RunStatus:
    """Returns the state as the status that `/status` answers."""
    step, total_steps = 0, None
    if state.resumed is not None:
        step, total_steps = state.resumed.checkpoint.step, state.resumed.total_steps
    if state.recent:
        step, total_steps = state.recent[-1].step, state.recent[-1].total_steps
    values = scalars_of(state)
    scalars = {to_camel(row.name): values.get(row.name) for row in SCALARS.values() if row.status}
    return RunStatus.model_validate(
        {
            **scalars,
            "run": state.run,
            "phase": state.phase,
            "started_at": state.started_at,
            "step": step,
            "total_steps": total_steps,
            "recent_losses": state.losses,
            "start_seconds": {k: round(v, 3) for k, v in state.start_seconds.items()},
            "step_phase_seconds": mean_phase_seconds(state.recent),
            "last_step_time": state.last_step_time,
            "last_checkpoint": state.checkpoint,
            "message": state.message,
        }
    )
