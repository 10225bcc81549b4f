"""The Run dashboard as committed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_server import DASHBOARD, panel_queries

SOURCE = Path(__file__).parents[2] / "charts" / "src" / "run_dashboard.py"


def test_committed_dashboard_is_current() -> None:
    pytest.importorskip("grafana_foundation_sdk", reason="comes with the extra `dev`")
    script = f"import runpy, sys; sys.stdout.write(runpy.run_path({str(SOURCE)!r})['build']())"
    built = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert built == DASHBOARD.read_text(), "run: python charts/src/run_dashboard.py"


def test_panels_fill_their_rows_and_say_what_they_show() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    charts = [panel for panel in panels if panel["type"] != "row"]
    assert all(panel["description"] and panel["targets"] for panel in charts)
    for panel in charts:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24


def test_every_expression_asks_for_the_chosen_run() -> None:
    for title, expression, _ in panel_queries("quick"):
        assert expression.count('run="quick"') == expression.count("{"), title
