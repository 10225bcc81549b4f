"""A run's status as a panel for the terminal: the live display's and `arlow watch`'s picture."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from arlow_trainer.config.status import ENDED, LossPoint, RunStatus

SPARK_WIDTH = 40
_BARS = "▁▂▃▄▅▆▇█"
_PHASE_STYLES = {"finished": "bold green", "failed": "bold red", "training": "bold cyan"}


def status_panel(
    status: RunStatus, now: datetime, losses: Sequence[LossPoint] | None = None, note: str = ""
) -> RenderableType:
    """Returns a run's status at `now` as a panel.

    `losses` is a longer curve than the status carries; `note` is the reader's own remark, shown
    below everything.
    """
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column(overflow="fold")
    for label, text in _rows(status, now, losses or status.recent_losses):
        rows.add_row(label, text)
    style = _PHASE_STYLES.get(status.phase, "bold yellow")
    title = Text.assemble((status.run, "bold"), " · ", (status.phase, style))
    parts: list[RenderableType] = [_progress(status), rows]
    if note:
        parts.append(Text(note, style="yellow"))
    return Panel(Group(*parts), title=title, title_align="left")


def _progress(status: RunStatus) -> RenderableType:
    if status.total_steps is None:
        return Text("no step yet", style="dim")
    line = Table.grid(expand=True, padding=(0, 2))
    line.add_column(ratio=1)
    line.add_column(no_wrap=True)
    share = status.step / status.total_steps if status.total_steps else 1.0
    counts = f"step {status.step:,} / {status.total_steps:,}  {share:.1%}"
    if status.eta_seconds is not None and status.phase not in ENDED:
        counts += f"  ETA {duration(status.eta_seconds)}"
    line.add_row(ProgressBar(total=status.total_steps, completed=status.step), counts)
    return line


def _rows(
    status: RunStatus, now: datetime, losses: Sequence[LossPoint]
) -> list[tuple[str, RenderableType]]:
    rows: list[tuple[str, RenderableType]] = []
    if status.loss is not None:
        parts = [f"{status.loss:.4f}"]
        if status.image_loss is not None and status.video_loss is not None:
            parts.append(f"images {status.image_loss:.4f}  clips {status.video_loss:.4f}")
        parts.append(sparkline([point.loss for point in losses], SPARK_WIDTH))
        rows.append(("loss", Text("  ".join(parts))))
    if status.learning_rate is not None:
        text = f"{status.learning_rate:.3g}"
        if status.gradient_norm is not None:
            text += f"  gradient norm {status.gradient_norm:.3g}"
        rows.append(("learning rate", Text(text)))
    if status.images_per_second is not None:
        rows.append(("throughput", Text(_throughput(status))))
    if sum(status.step_phase_seconds.values()) > 0:
        rows.append(("step", Text(_phases(status.step_phase_seconds))))
    if status.last_step_time is not None and status.phase == "training":
        rows.append(("last step", Text(_ago(status.last_step_time, now))))
    if status.last_checkpoint is not None:
        checkpoint = status.last_checkpoint
        ago = _ago(checkpoint.time, now)
        rows.append(("checkpoint", Text(f"step {checkpoint.step:,}, {ago}: {checkpoint.uri}")))
    if status.message:
        rows.append(("message", Text(status.message)))
    return rows


def _throughput(status: RunStatus) -> str:
    parts = [f"{status.images_per_second:,.1f} images/s"]
    if status.clips_per_second:
        parts.append(f"{status.clips_per_second:,.1f} clips/s")
    if status.median_step_seconds is not None:
        parts.append(f"{status.median_step_seconds:.3g} s/step")
    if status.model_flops_utilization is not None:
        parts.append(f"MFU {status.model_flops_utilization:.1%}")
    return "  ".join(parts)


def _phases(seconds: dict[str, float]) -> str:
    total = sum(seconds.values())
    return "  ".join(f"{phase} {value / total:.0%}" for phase, value in seconds.items())


def sparkline(values: Sequence[float], width: int) -> str:
    """Returns values as a line of at most `width` block characters, each the mean of its share."""
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


def duration(seconds: float) -> str:
    """Returns a duration in its two largest units: 3 d 4 h, 12 min 5 s."""
    rest = round(max(0.0, seconds))
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def utc_now() -> datetime:
    """Returns the time that statuses are stamped with."""
    return datetime.now(UTC)


def _ago(time: datetime, now: datetime) -> str:
    return f"{duration((now - time).total_seconds())} ago"
