"""When a status is written: a transition at once, progress at an interval."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from arlow_operator.apply import is_due, progress_due_in
from arlow_operator.status import GoodputStatus, ProgressStatus, Status

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def status(step: int, ago: float = 0, **fields: str) -> Status:
    goodput = GoodputStatus(as_of=NOW - timedelta(seconds=ago))
    return Status(progress=ProgressStatus(step=step), goodput=goodput, **fields)


@pytest.mark.parametrize(
    ("written", "found", "due"),
    [
        (status(1, ago=100), status(1, ago=100), False),
        (status(1, ago=1), status(2), False),
        (status(1, ago=13), status(2), False),
        (status(1, ago=14), status(2), True),
        (status(1, ago=1), status(2, message="another"), True),
        (Status(), status(1), True),
    ],
)
def test_progress_waits_and_a_transition_does_not(
    written: Status, found: Status, due: bool
) -> None:
    assert is_due(written, found, NOW, 15) is due


@pytest.mark.parametrize(("ago", "seconds"), [(0, 125), (100, 25), (125, 0), (200, -75)])
def test_what_is_left_of_the_interval(ago: float, seconds: float) -> None:
    assert progress_due_in(status(1, ago), NOW, 125) == seconds


def test_what_was_never_written_is_due() -> None:
    assert progress_due_in(Status(), NOW, 125) == 0
