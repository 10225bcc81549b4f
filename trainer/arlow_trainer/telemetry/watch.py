"""Watching a run from outside: the state of the watch, and the loop that shows it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from arlow_trainer.config.shown_text import printable, printable_lines
from arlow_trainer.config.status import LossPoint, RunStatus
from arlow_trainer.telemetry.display import status_panel
from arlow_trainer.telemetry.scalars import SCALARS, texts
from arlow_trainer.telemetry.status_source import NoAnswer, StatusSource
from arlow_trainer.telemetry.times import duration, utc_now

MAX_LOSSES = 2000
QUIET_SECONDS = 60.0
"""Time without a step after which the remark says so; longer where steps are long."""


@dataclass(frozen=True)
class WatchState:
    """What a watcher knows of a run. `missing_since` is set while the run does not answer."""

    status: RunStatus | None = None
    losses: tuple[LossPoint, ...] = ()
    restarts: int = 0
    missing_since: datetime | None = None
    reason: str = ""


def after_answer(watched: WatchState, status: RunStatus) -> WatchState:
    """Returns the state after an answer: its losses extend the curve, over a restart too."""
    before = watched.status
    restarted = before is not None and before.started_at != status.started_at
    return WatchState(
        status=status,
        losses=_extended(watched.losses, status.recent_losses),
        restarts=watched.restarts + restarted,
    )


def after_no_answer(watched: WatchState, reason: str, now: datetime) -> WatchState:
    """Returns the state after a request without an answer."""
    return replace(watched, missing_since=watched.missing_since or now, reason=reason)


def ended(watched: WatchState) -> bool:
    """Whether the run is complete: finished, or no longer answering after its last step.

    A run that was stopped or failed is not: it may be started again.
    """
    status = watched.status
    if status is None:
        return False
    unreachable = watched.missing_since is not None and status.phase not in ("stopped", "failed")
    return status.phase == "finished" or (unreachable and status.step == status.total_steps)


def remark(watched: WatchState, now: datetime) -> str:
    """Returns the watcher's own remark: no answer, a failure, restarts; empty when all is well."""
    parts = []
    status = watched.status
    if watched.restarts:
        parts.append(f"restarted {watched.restarts} x while watched")
    if watched.missing_since is not None and not ended(watched):
        ago = duration((now - watched.missing_since).total_seconds())
        parts.append(f"no answer for {ago} ({watched.reason}); waiting for the run to come back")
    elif status is not None and status.phase in ("stopped", "failed"):
        parts.append("waiting for its restart; Ctrl-C ends the watch")
    elif status is not None and status.last_step_time is not None and not ended(watched):
        quiet = (now - status.last_step_time).total_seconds()
        if quiet > max(QUIET_SECONDS, 10 * (status.median_step_seconds or 0)):
            parts.append(f"no step for {duration(quiet)}: it may hang or have been ended")
    return "; ".join(parts)


def panel(watched: WatchState, target: str, now: datetime) -> RenderableType:
    """Returns the state as a panel."""
    if watched.status is None:
        reason = f": {watched.reason}" if watched.reason else ""
        text = Text(printable_lines(f"no status yet{reason}; waiting"))
        return Panel(text, title=Text(printable(target)), title_align="left")
    return status_panel(watched.status, now, losses=watched.losses, remark=remark(watched, now))


def status_line(status: RunStatus) -> str:
    """Returns a status as one line, for a log or a pipe."""
    parts = [f"{status.phase:<8}", f"step {status.step:,}/{status.total_steps or 0:,}"]
    rows = [row for row in SCALARS.values() if row.log and row.status]
    parts += [text for _, text in texts({row.name: status.scalar(row.name) for row in rows})]
    if status.message:
        parts.append(" ".join(status.message.splitlines()))
    return "  ".join(parts)


def watch_run(
    source: StatusSource,
    target: str,
    console: Console,
    interval: float,
    earlier: Sequence[LossPoint] = (),
) -> WatchState:
    """Shows a run until it is finished: a panel at a terminal, lines elsewhere.

    `earlier` is the curve up to the start of the watch. Returns the last state.
    """
    watched = WatchState(losses=tuple(earlier))
    if not console.is_terminal:
        return _print_lines(source, watched, console, interval)

    def draw() -> RenderableType:
        return panel(watched, target, utc_now())

    with Live(console=console, get_renderable=draw, refresh_per_second=2):
        while not ended(watched):
            watched = _request(source, watched)
            if not ended(watched):
                time.sleep(interval)
    return watched


def _print_lines(
    source: StatusSource, watched: WatchState, console: Console, interval: float
) -> WatchState:
    last = ""
    while not ended(watched):
        watched = _request(source, watched)
        if watched.status is not None and watched.missing_since is None:
            text = status_line(watched.status)
        else:
            text = f"no answer: {watched.reason}"
        if text != last:
            console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
        last = text
        if not ended(watched):
            time.sleep(interval)
    return watched


def _request(source: StatusSource, watched: WatchState) -> WatchState:
    try:
        return after_answer(watched, source())
    except NoAnswer as error:
        return after_no_answer(watched, str(error), utc_now())


def _extended(losses: tuple[LossPoint, ...], recent: Sequence[LossPoint]) -> tuple[LossPoint, ...]:
    """Returns a curve with newer points, which replace those from their first step on."""
    if not recent:
        return losses
    before = [point for point in losses if point.step < recent[0].step]
    curve = (*before, *recent)
    return curve if len(curve) <= MAX_LOSSES else curve[::2]
