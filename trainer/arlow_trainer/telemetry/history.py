"""The run's curve as data: a JSON line per read-out, and a reader that knows about resumes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from arlow_trainer.telemetry.reports import StepReport

HISTORY_FILE = "history.jsonl"


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """What was read at a step. `time` is UTC in ISO 8601; NaN and Inf are null, as in JSON.

    `images_per_second`, `clips_per_second` and `phase_seconds` (per step) are those of the recent
    steps.
    """

    step: int
    time: str
    loss: float | None = None
    image_loss: float | None = None
    video_loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    loss_scale: float | None = None
    images_per_second: float | None = None
    clips_per_second: float | None = None
    phase_seconds: dict[str, float] | None = None


def history_line(
    report: StepReport,
    now: datetime,
    images_per_second: float | None,
    clips_per_second: float | None,
    phase_seconds: dict[str, float],
) -> dict[str, Any]:
    """Returns the line of a step that has a read-out."""
    readout = report.readout
    assert readout is not None
    point = HistoryPoint(
        step=report.step,
        time=now.isoformat(timespec="milliseconds"),
        loss=_finite(readout.loss),
        image_loss=_finite(readout.image_loss),
        video_loss=_finite(readout.video_loss),
        learning_rate=readout.learning_rate,
        grad_norm=_finite(readout.grad_norm),
        loss_scale=readout.loss_scale,
        images_per_second=images_per_second,
        clips_per_second=clips_per_second,
        phase_seconds=phase_seconds,
    )
    return asdict(point)


def read_history(lines: Iterable[str]) -> list[HistoryPoint]:
    """Returns the curve that the lines of `history.jsonl` tell, in rising steps.

    A run resumed from a checkpoint repeats the steps after it: a line replaces every earlier one
    of its own step and beyond. A line cut short by a crash is left out, and so are keys that a
    later version may have added.
    """
    known = {field.name for field in fields(HistoryPoint)}
    points: list[HistoryPoint] = []
    for line in lines:
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            continue
        if not isinstance(values, dict) or "step" not in values or "time" not in values:
            continue
        point = HistoryPoint(**{key: value for key, value in values.items() if key in known})
        while points and points[-1].step >= point.step:
            points.pop()
        points.append(point)
    return points


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
