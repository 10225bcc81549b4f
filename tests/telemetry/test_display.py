"""The panel that the live display and `arlow watch` show."""

from __future__ import annotations

import os
import pty
import sys
from datetime import UTC, datetime, timedelta

import pytest
from child_process import child_process
from rich.console import Console

from arlow_trainer.config import LastCheckpoint, RunStatus
from arlow_trainer.config.status import LossPoint
from arlow_trainer.telemetry.display import sparkline, status_panel
from arlow_trainer.telemetry.times import duration

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def shown(status: RunStatus, width: int = 100) -> str:
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(status_panel(status, NOW))
    return console.export_text()


def training_status() -> RunStatus:
    return RunStatus(
        run="quick",
        phase="training",
        step=4200,
        total_steps=100_000,
        loss=0.41236,
        recent_losses=[LossPoint(step=i, loss=1 / i) for i in range(1, 100)],
        images_per_second=812.34,
        eta_seconds=95_800,
        last_step_time=NOW - timedelta(seconds=3),
        median_step_seconds=0.3154,
        step_phase_seconds={"data": 0.01, "forward": 0.09, "backward": 0.2},
        last_checkpoint=LastCheckpoint(
            url="s3://runs/quick/checkpoint-4000", step=4000, time=NOW - timedelta(minutes=3)
        ),
        message="resumed from step 3,000",
        imageLoss=0.4,
        videoLoss=0.45,
        learningRate=1.5e-4,
        gradNorm=0.81,
        clipsPerSecond=101.2,
        modelFlopsUtilization=0.312,
    )


def test_a_training_run_shows_all_it_has() -> None:
    text = shown(training_status())
    for part in (
        "quick · training",
        "step 4,200 / 100,000  4.2%  ETA 1 d 2 h",
        "0.4124  images 0.4000  clips 0.4500  █",
        "0.00015  gradient norm 0.81",
        "812.3 images/s  101.2 clips/s  0.315 s/step  MFU 31.2%",
        "data 3%  forward 30%  backward 67%",
        "3 s ago",
        "step 4,000, 3 min ago: s3://runs/quick/checkpoint-4000",
        "resumed from step 3,000",
    ):
        assert part in text


def test_a_run_that_has_not_begun_is_shown_too() -> None:
    text = shown(RunStatus(run="quick"))
    assert "quick · starting" in text
    assert "no step yet" in text


def test_a_message_may_look_like_markup() -> None:
    status = RunStatus(run="quick", message="skipped [bold]a[/nothing].jpg")
    assert "skipped [bold]a[/nothing].jpg" in shown(status)


def test_a_finished_run_has_no_remaining_time() -> None:
    status = RunStatus(run="quick", phase="finished", step=5, total_steps=5, eta_seconds=0)
    assert "ETA" not in shown(status)


def test_a_narrow_terminal_cuts_nothing_off() -> None:
    text = shown(training_status(), width=60)
    assert max(len(line) for line in text.splitlines()) <= 60
    assert "ETA 1 d 2 h" in text


@pytest.mark.parametrize(
    ("values", "width", "expected"),
    [
        ([], 8, ""),
        ([1.0], 8, "▁"),
        ([1.0, 1.0], 8, "▁▁"),
        ([0.0, 1.0], 8, "▁█"),
        ([8, 7, 6, 5, 4, 3, 2, 1], 8, "█▇▆▅▄▃▂▁"),
        ([4.0, 4.0, 0.0, 0.0], 2, "█▁"),
    ],
)
def test_sparkline(values: list[float], width: int, expected: str) -> None:
    assert sparkline(values, width) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (-3, "0 s"),
        (59.6, "1 min"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3605, "1 h"),
        (90_000, "1 d 1 h"),
        (2_592_000, "30 d"),
    ],
)
def test_duration(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


LIVE_RUN = """
import logging, time
from arlow_trainer.config import load_run
from arlow_trainer.telemetry import StepReport, Telemetry, TelemetryOptions

run = load_run("tiny", ["metadata.name=quick"])
telemetry = Telemetry(run, 0, 1, TelemetryOptions(live=True))
telemetry.phase("training")
for step in range(1, 11):
    readout = {"loss": 1 / step, "learning_rate": 1e-4, "grad_norm": 0.8}
    telemetry.step(StepReport(step, 10, 0.1, 24, 8, 2000, 1e9, {"data": 0.1}, readout))
    time.sleep(0.05)
telemetry.warning("a line above the panel")
telemetry.phase("finished")
telemetry.close()
print("after")
"""


def test_live_display_at_a_terminal() -> None:
    reader, terminal = pty.openpty()
    with child_process(
        [sys.executable, "-c", LIVE_RUN],
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
    ) as process:
        os.close(terminal)
        output = b""
        while True:
            try:
                chunk = os.read(reader, 65_536)
            except OSError:  # a terminal's answer when the other side is closed
                break
            if not chunk:
                break
            output += chunk
    os.close(reader)
    text = output.decode()
    assert process.returncode == 0, text
    assert "quick" in text
    assert "step 10 / 10" in text
    assert "a line above the panel" in text
    assert "learning rate 0.0001" not in text, "the display replaces the step lines"
    assert text.rstrip().endswith("after")
