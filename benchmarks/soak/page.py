"""What a soak found, as tables."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from .faults import KINDS, Kind
from .runs import EVERY, STEPS
from .supervisor import Row

BEGIN, END = "<!-- soak: begin -->", "<!-- soak: end -->"
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Soak:
    """A whole soak.

    Attributes:
        commit: what was soaked; see `commit`.
        rows: one for each fault.
        problems: what is wrong, in words; none where all is well.
        attempts: how often the command was started, without the runs that were never cut.
        cpu_seconds: of the processes that it waited for; of ranks whose launcher was killed it
            cannot know.
        loads: the machine's load average before and after.
    """

    commit: str
    seed: int
    rows: Sequence[Row]
    problems: Sequence[str]
    runs: int
    attempts: int
    seconds: float
    cpu_seconds: float
    loads: tuple[float, float]


def commit() -> str:
    """Returns the commit that is checked out, and whether there are changes to it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=_ROOT, capture_output=True, text=True)
        return done.stdout.strip()

    dirty = " with changes" if git("status", "--porcelain", "--", "trainer", "benchmarks") else ""
    return f"{git('rev-parse', '--short', 'HEAD') or 'unknown'}{dirty}"


def to_markdown(soak: Soak) -> str:
    """Returns the section that `--out` writes between its markers."""
    parts = [
        _how(soak),
        _table(
            ("fault", "what the user sees", "times", "exit code, cause", "steps lost",
             "s to the next step", "s to the next checkpoint"),
            _by_kind(soak.rows),
        ),
        "Each fault, in order; `-` where the next fault came before the next step:",
        _table(
            ("", "fault", "where", "run", "exit code", "cause", "steps lost",
             "s to the next step", "s to the next checkpoint"),
            [_cells(number, row) for number, row in enumerate(soak.rows, start=1)],
        ),
    ]  # fmt: skip
    if soak.problems:
        parts.append("\n".join(f"- PROBLEM: {problem}" for problem in soak.problems))
    return "\n\n".join(parts)


def to_lines(rows: Sequence[Row]) -> list[str]:
    """Returns the rows for a terminal."""
    cells = [_cells(number, row) for number, row in enumerate(rows, start=1)]
    header = ("", "fault", "where", "run", "code", "cause", "lost", "step s", "saved s")
    table = [header, *cells]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def write_between_markers(path: Path, text: str) -> None:
    """Replaces what lies between the markers of a file. Raises SystemExit where it has none."""
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"soak: {path} has no markers {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def _how(soak: Soak) -> str:
    weights = "and the last weights of every run were, byte for byte, those of one never cut"
    if soak.problems:
        weights = f"with {len(soak.problems)} problems, listed below"
    cores = len(os.sched_getaffinity(0))
    return (
        f"Written by `make soak ARGS='--seed {soak.seed} --faults {len(soak.rows)} --out "
        f"docs/reliability.md'` at commit {soak.commit}, {datetime.now(UTC):%Y-%m-%d}: "
        f"{len(soak.rows)} faults in {soak.runs} runs of {STEPS} steps with a checkpoint every "
        f"{EVERY}, {soak.attempts} attempts, {soak.seconds / 60:.1f} minutes "
        f"({soak.cpu_seconds / 60:.1f} of CPU time), {weights}. "
        f"Machine: {cores} cores, load average {soak.loads[0]:.1f} before and "
        f"{soak.loads[1]:.1f} after (the soak's own processes among it)."
    )


def _by_kind(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    found = []
    for kind in KINDS:
        own = [row for row in rows if row.fault.kind is kind]
        if own:
            found.append(
                (
                    kind.name,
                    kind.sees,
                    str(len(own)),
                    ", ".join(sorted({_end(row) for row in own})),
                    _range((row.lost for row in own), str),
                    _range((row.step_s for row in own), "{:.1f}".format),
                    _range((row.saved_s for row in own), "{:.1f}".format),
                )
            )
    return found


def _end(row: Row) -> str:
    if row.code is None:
        return "goes on"
    return " ".join(filter(None, (_code(row.fault.kind, row.code), row.cause)))


def _code(kind: Kind, code: int) -> str:
    return f"signal {-code}" if code < 0 else str(code)


def _range(values: Iterable[float | None], shown: Callable[[float], str]) -> str:
    known = sorted(value for value in values if value is not None)
    if not known:
        return "-"
    if known[0] == known[-1]:
        return shown(known[0])
    middle = median(known)
    middle = int(middle) if isinstance(known[0], int) else middle
    return f"{shown(known[0])} to {shown(known[-1])}, median {shown(middle)}"


def _cells(number: int, row: Row) -> tuple[str, ...]:
    return (
        str(number),
        row.fault.kind.name,
        row.fault.phase.value,
        f"{row.run}: {row.shape}",
        "goes on" if row.code is None else _code(row.fault.kind, row.code),
        row.cause or "-",
        "-" if row.lost is None else str(row.lost),
        "-" if row.step_s is None else f"{row.step_s:.1f}",
        "-" if row.saved_s is None else f"{row.saved_s:.1f}",
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, [":---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
