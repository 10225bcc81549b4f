"""Watching a run from outside: what was seen so far, and the loop that shows it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from arlow_trainer.config.status import ENDED, LossPoint, RunStatus
from arlow_trainer.telemetry.display import duration, status_panel, utc_now
from arlow_trainer.telemetry.status_source import Fetch, NoAnswer

MAX_LOSSES = 2000
QUIET_SECONDS = 60.0
"""Time without a step after which a watched run is called quiet; longer where steps are long."""


@dataclass(frozen=True)
class View:
    """What a watcher has seen of a run. `missing_since` is set while it does not answer."""

    status: RunStatus | None = None
    losses: tuple[LossPoint, ...] = ()
    restarts: int = 0
    missing_since: datetime | None = None
    reason: str = ""


def seen(view: View, status: RunStatus) -> View:
    """Returns the view after an answer: its losses continue the curve, over a restart too."""
    before = view.status
    restarted = before is not None and before.started_at != status.started_at
    return View(
        status=status,
        losses=_continued(view.losses, status.recent_losses),
        restarts=view.restarts + restarted,
    )


def missed(view: View, reason: str, now: datetime) -> View:
    """Returns the view after a question without answer."""
    return replace(view, missing_since=view.missing_since or now, reason=reason)


def ended(view: View) -> bool:
    """Whether there is nothing more to come: finished, or gone after its last step.

    A run that was stopped or failed is not at its end: it may be started again.
    """
    status = view.status
    if status is None:
        return False
    gone = view.missing_since is not None and status.phase not in ("stopped", "failed")
    return status.phase == "finished" or (gone and status.step == status.total_steps)


def note(view: View, now: datetime) -> str:
    """Returns the watcher's own remark: silence, a failure, restarts; empty when all is well."""
    parts = []
    status = view.status
    if view.restarts:
        parts.append(f"restarted {view.restarts} x while watched")
    if view.missing_since is not None and not ended(view):
        ago = duration((now - view.missing_since).total_seconds())
        parts.append(f"no answer for {ago} ({view.reason}); waiting for the run to come back")
    elif status is not None and status.phase in ("stopped", "failed"):
        parts.append("waiting for its restart; Ctrl-C ends the watch")
    elif status is not None and status.last_step_time is not None and not ended(view):
        quiet = (now - status.last_step_time).total_seconds()
        if quiet > max(QUIET_SECONDS, 10 * (status.median_step_seconds or 0)):
            parts.append(f"no step for {duration(quiet)}: it may hang or have been ended")
    return "; ".join(parts)


def picture(view: View, target: str, now: datetime) -> RenderableType:
    """Returns the view as a panel."""
    if view.status is None:
        reason = f": {view.reason}" if view.reason else ""
        text = Text(f"no status yet{reason}; waiting")
        return Panel(text, title=Text(target), title_align="left")
    return status_panel(view.status, now, losses=view.losses, note=note(view, now))


def line(status: RunStatus) -> str:
    """Returns a status as one line, for a log or a pipe."""
    parts = [f"{status.phase:<8}", f"step {status.step:,}/{status.total_steps or 0:,}"]
    if status.loss is not None:
        parts.append(f"loss {status.loss:.4f}")
    if status.images_per_second is not None:
        parts.append(f"{status.images_per_second:,.1f} images/s")
    if status.eta_seconds and status.phase not in ENDED:
        parts.append(f"ETA {duration(status.eta_seconds)}")
    if status.message:
        parts.append(status.message)
    return "  ".join(parts)


def watch_run(
    fetch: Fetch,
    target: str,
    console: Console,
    interval: float,
    earlier: Sequence[LossPoint] = (),
) -> View:
    """Shows a run until it is finished: a panel at a terminal, lines elsewhere. Returns the view.

    `earlier` is the curve of before the watch.
    """
    view = View(losses=tuple(earlier))
    if not console.is_terminal:
        return _print_lines(fetch, view, console, interval)

    def draw() -> RenderableType:
        return picture(view, target, utc_now())

    with Live(console=console, get_renderable=draw, refresh_per_second=2):
        while not ended(view):
            view = _ask(fetch, view)
            if not ended(view):
                time.sleep(interval)
    return view


def _print_lines(fetch: Fetch, view: View, console: Console, interval: float) -> View:
    last = ""
    while not ended(view):
        view = _ask(fetch, view)
        if view.status is not None and view.missing_since is None:
            text = line(view.status)
        else:
            text = f"no answer: {view.reason}"
        if text != last:
            console.print(text, markup=False, highlight=False, soft_wrap=True)
        last = text
        if not ended(view):
            time.sleep(interval)
    return view


def _ask(fetch: Fetch, view: View) -> View:
    try:
        return seen(view, fetch())
    except NoAnswer as error:
        return missed(view, str(error), utc_now())


def _continued(losses: tuple[LossPoint, ...], recent: Sequence[LossPoint]) -> tuple[LossPoint, ...]:
    """Returns a curve continued by newer points, which replace those of their own steps on."""
    if not recent:
        return losses
    kept = [point for point in losses if point.step < recent[0].step]
    curve = (*kept, *recent)
    return curve if len(curve) <= MAX_LOSSES else curve[::2]
