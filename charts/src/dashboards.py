"""Writes the dashboards for Grafana: `make docs`, or `python charts/src/dashboards.py`.

A test fails when a committed charts/dashboards/*.json is not what this writes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import fleet_dashboard
import gpus_dashboard
import operator_dashboard
import run_dashboard

TARGET = Path(__file__).parents[1] / "dashboards"

DASHBOARDS = {
    "fleet": fleet_dashboard.build,
    "gpus": gpus_dashboard.build,
    "operator": operator_dashboard.build,
    "run": run_dashboard.build,
}


def write(folder: Path) -> None:
    """Writes all dashboards into a folder."""
    for name, build in DASHBOARDS.items():
        (folder / f"{name}.json").write_text(build(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
