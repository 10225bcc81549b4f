"""The tables of docs/metrics.md: `python -m arlow_trainer.telemetry.reference FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic.alias_generators import to_camel

from arlow_trainer.telemetry.metrics import METRICS, Metric
from arlow_trainer.telemetry.scalars import SCALARS, Scalar

BEGIN = (
    "<!-- Written by `make docs` from arlow_trainer/telemetry; edit scalars.py, metrics.py. -->\n"
)
END = "<!-- The end of what `make docs` writes. -->\n"
_HEADER = "| metric | type | unit | meaning | elsewhere |\n| --- | --- | --- | --- | --- |"
_SUFFIXES = {"counter": "_total", "info": "_info"}


def updated_page(page: str) -> str:
    """Returns the page with current tables between its two markers."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


def tables() -> str:
    """Returns a section with a table for each subject: its scalars, then its other metrics."""
    rows: dict[str, list[str]] = {
        section: [] for section in ("Work done", "Learning", "Speed", "Checkpoints", "The run")
    }
    for scalar in SCALARS.values():
        rows[scalar.section].append(_scalar_row(scalar))
    for metric in METRICS.values():
        rows[metric.section].append(_metric_row(metric))
    return "\n".join(
        "\n".join([f"## {section}\n", _HEADER, *found, ""]) for section, found in rows.items()
    )


def _metric_row(metric: Metric) -> str:
    kind = "gauge" if metric.type == "info" else metric.type
    name = metric.name + _SUFFIXES.get(metric.type, "")
    return _row(f"`{name}`", kind, metric.unit, metric.help, "")


def _scalar_row(row: Scalar) -> str:
    name, kind = "", ""
    if row.metric is not None:
        kind = "counter" if row.counter else "gauge"
        name = f"`{row.metric}{_SUFFIXES.get(kind, '')}`"
    lines = [text for text, there in (("history", row.history), ("log", row.log)) if there]
    locations = [f"`{row.name}` in {' and '.join(lines)}"] if lines else []
    if row.status:
        locations.append(f"`{to_camel(row.name)}` in `/status`")
    if row.watch_row is not None:
        locations.append("`arlow watch`")
    if row.plot is not None:
        locations.append("report")
    return _row(name, kind, row.unit, row.help, ", ".join(locations))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(updated_page(path.read_text("utf-8")), "utf-8")
