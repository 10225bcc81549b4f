"""What a benchmark hands back, and the page made of it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch


@dataclass(frozen=True)
class Result:
    """A benchmark's table: what was measured and how, the numbers, and what they say."""

    title: str
    how: str
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    findings: Sequence[str] = ()

    def to_markdown(self) -> str:
        """Returns a section of the page."""
        parts = [f"## {self.title}", self.how]
        if self.rows:
            # Names to the left, numbers to the right.
            rule = [":---", *["---:"] * (len(self.header) - 1)]
            parts.append("\n".join(_row(cells) for cells in (self.header, rule, *self.rows)))
        if self.findings:
            parts.append("\n".join(f"- {finding}" for finding in self.findings))
        return "\n\n".join(parts) + "\n"


HEAD = (
    "# Benchmarks",
    "Written by `make bench ARGS='--out docs/benchmarks.md'`. Everything that is compared was "
    "measured in turn in one run (A, B, A, B, ...), one thread a process. Times are medians, "
    "and a ratio is the median of the rounds' own ratios. Where one thread does all the work, "
    "its CPU time is compared: what wall time would be on a machine without neighbours.",
)
FLEET_HEAD = (
    "# Benchmarks of dashboards",
    "Written by `make bench ARGS='--only fleet --out docs/benchmarks-fleet.md'`.",
)
GPU_HEAD = ("# Benchmarks on a GPU", "Written by `make bench-gpu`.")
NOT_RUN = "Not run: this machine has no GPU. `make bench-gpu` measures it on one."
GPU_TESTS_HEAD = ("# Tests on a GPU", "Written by `make test-gpu`.")


def page(head: Sequence[str], results: Sequence[Result], load_before: float, note: str) -> str:
    """Returns the Markdown page of a whole run.

    Args:
        head: its title, and how it is written.
        results: in order.
        load_before: the machine's load average before the first benchmark.
        note: a paragraph on how the numbers were taken, or nothing.
    """
    machine = "\n".join(
        _row(pair) for pair in (("machine", ""), (":---", ":---"), *machine_facts(load_before))
    )
    parts = [*head, *([note] if note else []), machine]
    return "\n\n".join([*parts, *(result.to_markdown() for result in results)])


def machine_facts(load_before: float) -> list[tuple[str, str]]:
    """Returns what a reader must know of the machine."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return [
        ("CPU", _cpu_model()),
        ("cores", str(len(os.sched_getaffinity(0)))),
        ("threads a process", str(torch.get_num_threads())),
        ("instructions", torch.backends.cpu.get_cpu_capability()),
        ("GPU", ", ".join(gpus) or "none"),
        ("Python, torch", f"{platform.python_version()}, {torch.__version__}"),
        ("load average before", f"{load_before:.2f}"),
        ("day", date.today().isoformat()),
    ]


def say(place: str, words: str) -> None:
    """Shows how far a benchmark is."""
    print(f"{place}: {words}", file=sys.stderr, flush=True)


def milliseconds(seconds: float) -> str:
    """Returns seconds in words of a table."""
    return f"{seconds * 1e3:,.{0 if seconds >= 1 else 1}f} ms"


def _row(cells: Sequence[str]) -> str:
    # A compiler's words may hold what ends a cell.
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
