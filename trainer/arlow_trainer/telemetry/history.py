"""The run's history as data: a JSON line per read-out, and a reader that allows for resumes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from arlow_trainer.storage.json_text import parse_object
from arlow_trainer.telemetry.scalars import SCALARS, ScalarValues

HISTORY_FILE = "history.jsonl"


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """What was read at a step: `time` in ISO 8601 (UTC), and scalars by their name in `SCALARS`.

    `phase_seconds` are those of a step, mean over the recent ones.
    """

    step: int
    time: str
    scalars: Mapping[str, float] = field(default_factory=dict)
    phase_seconds: Mapping[str, float] = field(default_factory=dict)


def history_line(
    step: int, now: datetime, values: ScalarValues, phase_seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Returns the line of a step that has a read-out. NaN and Inf are null, as JSON lacks them."""
    return {
        "step": step,
        "time": now.isoformat(timespec="milliseconds"),
        **{row.name: _finite(values.get(row.name)) for row in SCALARS.values() if row.history},
        "phase_seconds": phase_seconds,
    }


def tracked_scalars(values: ScalarValues, phase_seconds: Mapping[str, float]) -> dict[str, float]:
    """Returns what experiment trackers are given of a read-out: all rows of the table by their
    names, and `phase_seconds/<phase>`. What is not known or not finite is left out."""
    found = {name: _finite(values.get(name)) for name in SCALARS}
    phases = {f"phase_seconds/{phase}": seconds for phase, seconds in phase_seconds.items()}
    return {name: value for name, value in (found | phases).items() if value is not None}


def read_history(lines: Iterable[str]) -> list[HistoryPoint]:
    """Returns the history that the lines of `history.jsonl` hold, in rising steps.

    A run resumed from a checkpoint repeats the steps after it: a line replaces every earlier one
    of its own step and beyond. A line cut short by a crash is left out, and so is what a later
    version may have added that is no number.
    """
    points: list[HistoryPoint] = []
    for line in lines:
        values = parse_object(line) or {}
        step, time = values.pop("step", None), values.pop("time", None)
        if type(step) is not int or step < 0 or not isinstance(time, str):
            continue
        phase_seconds = _numbers(values.pop("phase_seconds", None))
        while points and points[-1].step >= step:
            points.pop()
        points.append(HistoryPoint(step, time, _numbers(values), phase_seconds))
    return points


def _numbers(values: object) -> dict[str, float]:
    """Returns what is a number in an object; JSON's true and false are integers to Python."""
    found = values.items() if isinstance(values, dict) else ()
    return {key: value for key, value in found if type(value) in (int, float)}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
