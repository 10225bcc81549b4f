"""A run's status as a panel for the terminal: of the live display and of `arlow watch`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import pairwise

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from arlow_trainer.config.shown_text import printable, printable_lines
from arlow_trainer.config.status import ENDED, LossPoint, RunStatus
from arlow_trainer.telemetry.scalars import SCALARS, texts
from arlow_trainer.telemetry.times import duration, utc_now

SPARK_WIDTH = 40
REFRESH_PER_SECOND = 4
_BARS = "▁▂▃▄▅▆▇█"
_PHASE_STYLES = {"finished": "bold green", "failed": "bold red", "training": "bold cyan"}


class LiveDisplay:
    """Shows the run's status below the log lines until it is closed.

    The panel is drawn by a thread of its own from the current status, so that it costs a step
    nothing.
    """

    def __init__(self, status: Callable[[], RunStatus]) -> None:
        def draw() -> RenderableType:
            return status_panel(status(), utc_now())

        self._live = Live(
            console=Console(), get_renderable=draw, refresh_per_second=REFRESH_PER_SECOND
        )
        self._live.start()

    def close(self) -> None:
        """Draws the last state, leaves it on the screen, and restores stdout."""
        self._live.stop()


def status_panel(
    status: RunStatus, now: datetime, losses: Sequence[LossPoint] | None = None, remark: str = ""
) -> RenderableType:
    """Returns a run's status at `now` as a panel.

    `losses` is a longer curve than the status carries; `remark` is the watcher's own, shown below
    everything.
    """
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in _rows(status, now, losses or status.recent_losses):
        table.add_row(label, Text(printable_lines(text)))
    style = _PHASE_STYLES.get(status.phase, "bold yellow")
    title = Text.assemble((printable(status.run), "bold"), " · ", (status.phase, style))
    parts: list[RenderableType] = [_progress(status), table]
    if remark:
        parts.append(Text(printable_lines(remark), style="yellow"))
    return Panel(Group(*parts), title=title, title_align="left")


def _progress(status: RunStatus) -> RenderableType:
    if status.total_steps is None:
        return Text("no step yet", style="dim")
    row = Table.grid(expand=True, padding=(0, 2))
    row.add_column(ratio=1)
    row.add_column(no_wrap=True)
    share = status.step / status.total_steps if status.total_steps else 1.0
    counts = f"step {status.step:,} / {status.total_steps:,}  {share:.1%}"
    if status.eta_seconds is not None and status.phase not in ENDED:
        counts += f"  ETA {duration(status.eta_seconds)}"
    row.add_row(ProgressBar(total=status.total_steps, completed=status.step), counts)
    return row


def _rows(status: RunStatus, now: datetime, losses: Sequence[LossPoint]) -> list[tuple[str, str]]:
    rows = _scalar_rows(status)
    if "loss" in rows:
        rows["loss"] += "  " + sparkline([point.loss for point in losses], SPARK_WIDTH)
    if sum(status.step_phase_seconds.values()) > 0:
        rows["step"] = _phases(status.step_phase_seconds)
    if status.last_step_time is not None and status.phase == "training":
        rows["last step"] = _ago(status.last_step_time, now)
    if status.last_checkpoint is not None:
        checkpoint = status.last_checkpoint
        ago = _ago(checkpoint.time, now)
        rows["checkpoint"] = f"step {checkpoint.step:,}, {ago}: {checkpoint.url}"
    if status.message:
        rows["message"] = status.message
    return list(rows.items())


def _scalar_rows(status: RunStatus) -> dict[str, str]:
    """Returns the rows of scalars by their label, which is not repeated in the text."""
    values = {row.name: status.scalar(row.name) for row in SCALARS.values() if row.watch_row}
    parts: dict[str, list[str]] = {}
    for row, text in texts(values):
        parts.setdefault(row.watch_row or "", []).append(text)
    return {label: "  ".join(found).removeprefix(f"{label} ") for label, found in parts.items()}


def _phases(seconds: dict[str, float]) -> str:
    total = sum(seconds.values())
    return "  ".join(f"{phase} {value / total:.0%}" for phase, value in seconds.items())


def sparkline(values: Sequence[float], width: int) -> str:
    """Returns values as at most `width` block characters, each the mean of its share."""
    count = min(width, len(values))
    bounds = [index * len(values) // count for index in range(count)] + [len(values)]
    means = [sum(values[low:high]) / (high - low) for low, high in pairwise(bounds)]
    if not means:
        return ""
    low, spread = min(means), max(means) - min(means)
    if spread == 0:
        return _BARS[0] * count
    top = len(_BARS) - 1
    return "".join(_BARS[round((mean - low) / spread * top)] for mean in means)


def _ago(time: datetime, now: datetime) -> str:
    return f"{duration((now - time).total_seconds())} ago"
