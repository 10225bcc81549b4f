"""The table of the runs of a cluster, as wide and as high as there is room for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.cells import cell_len
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from arlow_trainer.cluster.fleet import FleetRow, GpuHours
from arlow_trainer.telemetry.times import duration

GAP = 2
# Of no terminal: for the size of tabs.
_MEASURING = Console(width=80)
_STYLES = {
    "Running": "cyan",
    "Succeeded": "green",
    "Suspended": "dim",
    "Failed": "bold red",
    "Restarting": "yellow",
    "Queued": "yellow",
}


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        head: its head.
        cell: what it shows of a run.
        left_out: its place among those that are left out where there is no room; 0 for never.
        justify: the side that its cells are at.
    """

    head: str
    cell: Callable[[FleetRow], str]
    left_out: int = 0
    justify: JustifyMethod = "right"


COLUMNS = (
    Column("NAMESPACE", lambda row: row.namespace, justify="left"),
    Column("NAME", lambda row: row.name, justify="left"),
    Column("PHASE", lambda row: _phase(row), justify="left"),
    Column("ATTEMPT", lambda row: _whole(row.attempt), 2),
    Column("STEP", lambda row: _steps(row), 9),
    Column("PROGRESS", lambda row: _share(_progress(row)), 11),
    Column("ETA", lambda row: _duration(row.eta_seconds), 10),
    Column("LOSS", lambda row: _rounded(row.loss), 8),
    Column("IMG/S", lambda row: _rounded(row.images_per_second), 4),
    Column("MFU", lambda row: _share(row.mfu), 1),
    Column("GOODPUT", lambda row: _share(row.goodput), 5),
    Column("RESTARTS", lambda row: _whole(row.restarts), 7),
    Column("CKPT-AGE", lambda row: _duration(row.checkpoint_seconds), 6),
    Column("GPUS", lambda row: str(row.gpus), 3),
)


def fleet_view(
    rows: Sequence[FleetRow],
    namespace: str | None,
    *,
    width: int,
    height: int | None = None,
    remark: str = "",
) -> RenderableType:
    """Returns the table of runs, the reasons of what is not well, and the sums.

    Args:
        rows: the runs.
        namespace: of all of them; None for the runs of all namespaces, which the table then names.
        width: of the terminal, in characters; columns that do not fit are left out.
        height: of the terminal, in lines; None for no bound.
        remark: a line below everything.
    """
    namespaces = namespace is None
    columns = [each for each in COLUMNS if namespaces or each.head != "NAMESPACE"]
    foot = [Text(line) for line in _sums(rows, namespace, whole=height is None)]
    if remark:
        foot.append(Text(remark, style="yellow"))
    # Besides runs: the head, an empty line above the reasons and one above the sums.
    room = None if height is None else height - 3 - sum(_lines(each, width) for each in foot)
    shown = fitting_rows(rows, room, width, namespaces)
    if len(shown) < len(rows):
        names = {(row.namespace, row.name) for row in shown}
        left = _phases([row for row in rows if (row.namespace, row.name) not in names])
        words = f"no room for {left}: `arlow fleet | less -S` has all"
        foot.insert(0, Text(words, no_wrap=True, overflow="ellipsis"))
    parts: list[RenderableType] = []
    if shown:
        parts += [_table(shown, fitting_columns(shown, columns, width)), Text()]
    reasons = [_reason(row, namespaces) for row in shown if row.reason]
    parts += [*reasons, Text()] if reasons else []
    return Group(*parts, *foot)


def full_width(rows: Sequence[FleetRow]) -> int:
    """Returns the width in which every column and every reason fits on its lines."""
    reasons = max((cell_len(_reason(row, True).plain) for row in rows), default=0)
    return max(_width(rows, COLUMNS), reasons, 200)


def fitting_columns(
    rows: Sequence[FleetRow], columns: Sequence[Column], width: int
) -> list[Column]:
    """Returns the columns that have room beside each other."""
    kept = list(columns)
    for place in sorted({each.left_out for each in columns} - {0}):
        if _width(rows, kept) <= width:
            break
        kept = [each for each in kept if each.left_out != place]
    return kept


def fitting_rows(
    rows: Sequence[FleetRow], lines: int | None, width: int, namespaces: bool
) -> list[FleetRow]:
    """Returns the runs for which there are lines, in their order.

    Those that are not well come first, with their reasons, then those that live.
    """
    if lines is None:
        return list(rows)
    chosen = set()
    # One line says what is left out.
    left = lines - 1
    for index in sorted(range(len(rows)), key=lambda each: _rank(rows[each])):
        row = rows[index]
        left -= 1 + (_lines(_reason(row, namespaces), width) if row.reason else 0)
        if left < 0:
            break
        chosen.add(index)
    return [row for index, row in enumerate(rows) if index in chosen]


def _rank(row: FleetRow) -> int:
    return 2 if row.over else 0 if row.reason else 1


def _table(rows: Sequence[FleetRow], columns: Sequence[Column]) -> Table:
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for each in columns:
        table.add_column(each.head, justify=each.justify, no_wrap=True)
    for row in rows:
        style = "bold red" if row.stalled else _STYLES.get(row.phase, "yellow")
        table.add_row(
            *(Text(each.cell(row), style=style if each.head == "PHASE" else "") for each in columns)
        )
    return table


def _reason(row: FleetRow, namespaces: bool) -> Text:
    name = f"{row.namespace}/{row.name}" if namespaces else row.name
    return Text.assemble((f"{name}: ", "bold"), row.reason)


def _sums(rows: Sequence[FleetRow], namespace: str | None, whole: bool) -> list[str]:
    where = "in all namespaces" if namespace is None else f"in the namespace {namespace}"
    if not rows:
        return [f"no runs {where}"]
    number = "1 run" if len(rows) == 1 else f"{len(rows):,} runs"
    lines = [f"{number} {where}: {_phases(rows)}"]
    total = sum((row.hours for row in rows), GpuHours())
    if total == GpuHours():
        return lines
    lines.append(f"GPU hours: {_hours(total)}")
    spent = {
        name: sum((row.hours for row in group), GpuHours())
        for name, group in groupby(rows, key=lambda row: row.namespace)
    }
    if whole and len(spent) > 1:
        lines += [
            f"  {name}: {_hours(hours)}" for name, hours in spent.items() if hours != GpuHours()
        ]
    return lines


def _phases(rows: Sequence[FleetRow]) -> str:
    counts = Counter(row.phase for row in rows)
    stalled = Counter(row.phase for row in rows if row.stalled)
    return ", ".join(
        f"{number} {phase}" + (f" ({stalled[phase]} stalled)" if stalled[phase] else "")
        for phase, number in sorted(counts.items())
    )


def _hours(hours: GpuHours) -> str:
    return (
        f"{hours.productive:,.1f} productive, {hours.lost:,.1f} lost, "
        f"{hours.starting:,.1f} starting, {hours.queued:,.1f} queued"
    )


def _width(rows: Sequence[FleetRow], columns: Sequence[Column]) -> int:
    cells = ([each.head, *(each.cell(row) for row in rows)] for each in columns)
    return sum(max(map(cell_len, column)) + GAP for column in cells) - GAP


def _lines(text: Text, width: int) -> int:
    return len(text.wrap(_MEASURING, max(1, width)))


def _phase(row: FleetRow) -> str:
    return f"{row.phase}, stalled" if row.stalled else row.phase


def _progress(row: FleetRow) -> float | None:
    return row.step / row.total_steps if row.step is not None and row.total_steps else None


def _steps(row: FleetRow) -> str:
    if row.step is None:
        return ""
    return f"{row.step:,}" if row.total_steps is None else f"{row.step:,}/{row.total_steps:,}"


def _whole(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _rounded(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else duration(seconds)
