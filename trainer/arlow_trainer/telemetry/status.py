"""The run's progress as a value: each event gives the next one, and it renders as `RunStatus`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import median

from arlow_trainer.config.status import LastCheckpoint, LossPoint, Phase, RunStatus
from arlow_trainer.telemetry.reports import CheckpointReport, Readout, Resumed, StepReport

RECENT_STEPS = 50
RECENT_LOSSES = 60


@dataclass(frozen=True, slots=True)
class PhaseChanged:
    """The run entered a phase."""

    phase: Phase
    message: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """Something a reader of the status should know."""

    text: str


Event = PhaseChanged | Message | Resumed | StepReport | CheckpointReport


@dataclass(frozen=True, slots=True)
class Progress:
    """All that a run's status is made of. `peak_flops` is that of all devices together."""

    run: str
    started_at: datetime
    peak_flops: float | None = None
    phase: Phase = "starting"
    message: str = ""
    resumed: Resumed | None = None
    recent: tuple[StepReport, ...] = ()
    last_step_time: datetime | None = None
    readout: Readout | None = None
    losses: tuple[LossPoint, ...] = ()
    checkpoint: LastCheckpoint | None = None


def advance(progress: Progress, event: Event, now: datetime) -> Progress:
    """Returns the progress after an event at `now` (UTC)."""
    match event:
        case StepReport():
            return _after_step(progress, event, now)
        case PhaseChanged():
            message = event.message or progress.message
            return replace(progress, phase=event.phase, message=message)
        case Resumed():
            return replace(progress, resumed=event, checkpoint=event.checkpoint)
        case CheckpointReport():
            checkpoint = LastCheckpoint(uri=event.uri, step=event.step, time=now)
            return replace(progress, checkpoint=checkpoint)
        case Message():
            return replace(progress, message=event.text)


def _after_step(progress: Progress, report: StepReport, now: datetime) -> Progress:
    recent = (*progress.recent[1 - RECENT_STEPS :], report)
    readout = report.readout
    if readout is None:
        return replace(progress, recent=recent, last_step_time=now)
    losses = progress.losses
    if math.isfinite(readout.loss):
        point = LossPoint(step=report.step, loss=readout.loss)
        losses = (*losses[1 - RECENT_LOSSES :], point)
    return replace(progress, recent=recent, last_step_time=now, readout=readout, losses=losses)


def status_of(progress: Progress) -> RunStatus:
    """Returns the progress as the status that `/status` answers.

    The remaining time is the remaining steps at the median time of the recent ones, so that one
    slow step does not move it.
    """
    status = RunStatus(
        run=progress.run,
        phase=progress.phase,
        started_at=progress.started_at,
        last_step_time=progress.last_step_time,
        last_checkpoint=progress.checkpoint,
        recent_losses=list(progress.losses),
        message=progress.message,
    )
    if progress.resumed is not None:
        status.step = progress.resumed.checkpoint.step
        status.total_steps = progress.resumed.total_steps
        status.loss = progress.resumed.loss
    if progress.readout is not None:
        readout = progress.readout
        status.loss = readout.loss
        status.image_loss = readout.image_loss
        status.video_loss = readout.video_loss
        status.learning_rate = readout.learning_rate
        status.gradient_norm = readout.grad_norm
    if progress.recent:
        _describe_recent_steps(status, progress.recent, progress.peak_flops)
    return status


def _describe_recent_steps(
    status: RunStatus, recent: tuple[StepReport, ...], peak_flops: float | None
) -> None:
    last = recent[-1]
    step_seconds = median(report.seconds for report in recent)
    status.step = last.step
    status.total_steps = last.total_steps
    status.median_step_seconds = step_seconds
    if status.phase not in ("stopped", "failed"):
        status.eta_seconds = max(0, last.total_steps - last.step) * step_seconds
    seconds = sum(report.seconds for report in recent)
    if seconds > 0:
        status.images_per_second = sum(report.images for report in recent) / seconds
        status.clips_per_second = sum(report.clips for report in recent) / seconds
        if peak_flops:
            flops = sum(report.flops for report in recent)
            status.model_flops_utilization = flops / seconds / peak_flops
    phases = dict.fromkeys(phase for report in recent for phase in report.phase_seconds)
    status.step_phase_seconds = {
        phase: sum(report.phase_seconds.get(phase, 0.0) for report in recent) / len(recent)
        for phase in phases
    }
