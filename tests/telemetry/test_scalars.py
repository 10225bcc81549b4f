"""The table of scalars: one row and one value are all that a new number needs."""

from __future__ import annotations

import json
import re
import runpy
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from telemetry_reports import make_readout, make_report

from arlow_trainer.report.curves import scalar_plots
from arlow_trainer.telemetry import Telemetry, read_history
from arlow_trainer.telemetry.reference import tables, updated_page
from arlow_trainer.telemetry.scalars import SCALARS, Scalar, rows_to_show, texts
from arlow_trainer.telemetry.watch import status_line

ROOT = Path(__file__).parents[2]
NEW = Scalar(
    name="host_memory_bytes",
    unit="bytes",
    help="Memory of the process of rank 0",
    section="Speed",
    text="host memory {:.1f}".format,
    metric="arlow_host_memory_bytes",
    history=True,
    log=True,
    status=True,
    watch_row="memory",
    plot="Host memory",
)


def test_a_row_and_a_value_are_all_that_a_new_number_needs(
    telemetry: Callable[..., Telemetry],
    free_port: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(SCALARS, NEW.name, NEW)
    lines: list[dict[str, Any]] = []
    started = telemetry(append_history=lines.extend, log_format="text")
    started.phase("training")
    started.step(make_report(1, readout=make_readout(host_memory_bytes=12.5)))

    def get(path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{free_port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    metrics = get("/metrics")
    assert 'arlow_host_memory_bytes{run="quick"} 12.5\n' in metrics
    assert "# HELP arlow_host_memory_bytes Memory of the process of rank 0\n" in metrics
    assert json.loads(get("/status"))["hostMemoryBytes"] == 12.5
    assert "host memory 12.5" in capsys.readouterr().out
    assert "host memory 12.5" in status_line(started.status())
    started.close()
    assert lines[0]["host_memory_bytes"] == 12.5
    points = read_history([json.dumps(lines[0])])
    assert points[0].scalars["host_memory_bytes"] == 12.5
    assert "Host memory" in [plot.title for plot in scalar_plots(points)]
    assert (
        "| `arlow_host_memory_bytes` | gauge | bytes | Memory of the process of rank 0 | "
        "`host_memory_bytes` in history and log, `hostMemoryBytes` in `/status`, `arlow watch`, "
        "report |" in tables()
    )


def test_the_dashboard_draws_a_new_number(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("grafana_foundation_sdk", reason="comes with the extra `dev`")
    monkeypatch.setitem(SCALARS, NEW.name, NEW)
    monkeypatch.syspath_prepend(str(ROOT / "charts" / "src"))
    build = runpy.run_path(str(ROOT / "charts" / "src" / "run_dashboard.py"))["build"]
    panels = json.loads(build())["panels"]
    titles = [panel["title"] for panel in panels]
    assert titles.index("Speed") < titles.index("Host memory bytes") < titles.index("Checkpoints")
    [panel] = [panel for panel in panels if panel["title"] == "Host memory bytes"]
    assert "arlow_host_memory_bytes{" in panel["targets"][0]["expr"]


def test_the_committed_page_is_current() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    assert page == updated_page(page), "run `make docs` and commit the page"
    assert tables() in page


@pytest.mark.parametrize("row", SCALARS.values(), ids=list(SCALARS))
def test_a_row_is_complete(row: Scalar) -> None:
    assert row.metric or row.history or row.log or row.status, "it goes nowhere"
    assert row.metric is None or re.fullmatch(r"arlow_[a-z_]+", row.metric)
    assert not row.counter or row.metric
    assert row.watch_row is None or row.status, "watch shows what the status has"
    assert row.plot is None or row.history, "the report plots what the history has"
    assert row.part_of is None or row.part_of in SCALARS


def test_names_of_numbers_and_metrics_are_unique() -> None:
    metrics = [row.metric for row in SCALARS.values() if row.metric]
    assert len(metrics) == len(set(metrics))
    assert [row.name for row in SCALARS.values()] == list(SCALARS)


@pytest.mark.parametrize(
    ("known", "shown"),
    [
        ([], []),
        (["loss", "image_loss"], ["loss"]),
        (["video_loss", "loss"], ["loss"]),
        (["video_loss", "image_loss", "loss"], ["loss", "image_loss", "video_loss"]),
    ],
)
def test_a_part_is_shown_only_beside_another_part(known: list[str], shown: list[str]) -> None:
    assert [row.name for row in rows_to_show(known)] == shown


def test_values_as_text() -> None:
    values = {
        "eta_seconds": 65.0,
        "loss": 0.25,
        "image_loss": 0.2,
        "video_loss": 0.3,
        "loss_scale": 65536.0,
        "clips_per_second": 0.0,
        "grad_norm": None,
        "images_per_second": 1234.56,
    }
    assert [text for _, text in texts(values)] == [
        "loss 0.2500",
        "images 0.2000",
        "clips 0.3000",
        "loss scale 65536",
        "1,234.6 images/s",
        "ETA 1 min 5 s",
    ]
