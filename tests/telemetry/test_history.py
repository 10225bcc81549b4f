"""The run's history: written per read-out, read over resumes and crashes."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime

import pytest
from telemetry_reports import make_readout

from arlow_trainer.telemetry import read_history
from arlow_trainer.telemetry.history import HistoryPoint, history_line

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def line(step: int, loss: float) -> str:
    return json.dumps({"step": step, "time": NOW.isoformat(), "loss": loss})


def test_a_line_reads_back() -> None:
    values = make_readout(loss=0.25, images_per_second=48.0, clips_per_second=6.0)
    written = json.dumps(history_line(10, NOW, values, {"data": 0.1}))
    assert read_history([written]) == [
        HistoryPoint(
            step=10,
            time="2026-01-01T12:00:00.000+00:00",
            scalars={
                "loss": 0.25,
                "image_loss": 0.45,
                "video_loss": 0.65,
                "learning_rate": 1e-4,
                "grad_norm": 0.8,
                "loss_scale": 65536.0,
                "images_per_second": 48.0,
                "clips_per_second": 6.0,
            },
            phase_seconds={"data": 0.1},
        )
    ]


def test_numbers_that_json_lacks_are_null() -> None:
    written = history_line(10, NOW, make_readout(loss=math.nan, grad_norm=math.inf), {})
    assert (written["loss"], written["grad_norm"]) == (None, None)
    json.dumps(written, allow_nan=False)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([], [], id="nothing yet"),
        pytest.param([line(1, 0.9), line(2, 0.8)], [(1, 0.9), (2, 0.8)], id="one process"),
        pytest.param(
            [line(1, 0.9), line(2, 0.8), line(3, 0.7), line(2, 0.81), line(3, 0.71)],
            [(1, 0.9), (2, 0.81), (3, 0.71)],
            id="resumed from step 1: its steps replace the former ones",
        ),
        pytest.param(
            [line(10, 0.9), line(20, 0.8), line(15, 0.85)],
            [(10, 0.9), (15, 0.85)],
            id="what lies beyond the resumed step never happened",
        ),
        pytest.param(
            [line(1, 0.9), line(1, 0.9), line(2, 0.8)],
            [(1, 0.9), (2, 0.8)],
            id="handed over twice",
        ),
        pytest.param(
            [line(1, 0.9), '{"step": 2, "ti', line(3, 0.7)],
            [(1, 0.9), (3, 0.7)],
            id="cut short by a crash",
        ),
        pytest.param(["[]", '{"loss": 1}', "\n"], [], id="not a read-out"),
        pytest.param(
            ['{"step": 1, "time": "t", "loss": 0.5, "later": true}'],
            [(1, 0.5)],
            id="key of a later version that is no number",
        ),
    ],
)
def test_points_of_lines(lines: list[str], expected: list[tuple[int, float]]) -> None:
    found = [(point.step, *point.scalars.values()) for point in read_history(lines)]
    assert found == expected


def test_a_line_of_an_earlier_version_reads_back() -> None:
    """As version 0.1 wrote it, null for what did not apply."""
    written = (
        '{"step": 20, "time": "2026-01-01T12:00:00.000+00:00", "loss": 0.25, "image_loss": 0.25, '
        '"video_loss": null, "learning_rate": 0.0001, "grad_norm": null, "loss_scale": null, '
        '"images_per_second": 48.0, "clips_per_second": 0.0, "phase_seconds": {"data": 0.1}}'
    )
    [point] = read_history([written])
    assert (point.step, point.time) == (20, "2026-01-01T12:00:00.000+00:00")
    assert point.scalars == {
        "loss": 0.25,
        "image_loss": 0.25,
        "learning_rate": 0.0001,
        "images_per_second": 48.0,
        "clips_per_second": 0.0,
    }
    assert point.phase_seconds == {"data": 0.1}
