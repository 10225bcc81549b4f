"""When checkpoints are due."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from arlow_trainer.config.models import CheckpointSection
from arlow_trainer.run.checkpoint_times import CheckpointTimes


@pytest.mark.parametrize(
    ("section", "saved"),
    [
        # A step takes 25 s.
        ({"everySteps": 4}, [4, 8, 12]),
        ({"everySteps": 4, "everyMinutes": 0}, [4, 8, 12]),
        ({"everySteps": 0, "everyMinutes": 1}, [3, 6, 9, 12]),
        ({"everySteps": 0, "everyMinutes": 1.5}, [4, 8, 12]),
        # The earlier one; minutes count from the last checkpoint, of either kind.
        ({"everySteps": 5, "everyMinutes": 1}, [3, 5, 8, 10]),
        ({"everySteps": 2, "everyMinutes": 1}, [2, 4, 6, 8, 10, 12]),
        ({"everySteps": 100, "everyMinutes": 2}, [5, 10]),
        ({"everySteps": 0, "everyMinutes": 0}, []),
        ({"everySteps": 100}, []),
    ],
)
def test_the_earlier_of_steps_and_minutes(section: Mapping[str, Any], saved: list[int]) -> None:
    now = 0.0
    times = CheckpointTimes(CheckpointSection.model_validate(section), clock=lambda: now)
    found = []
    for step in range(1, 13):
        now += 25
        if times.due(step, times.minutes_passed()):
            found.append(step)
    assert found == saved


def test_another_ranks_clock_decides() -> None:
    now = 0.0
    section = CheckpointSection.model_validate({"everySteps": 0, "everyMinutes": 1})
    times = CheckpointTimes(section, clock=lambda: now)
    assert times.due(1, True)
    now = 59.0
    assert not times.minutes_passed()
    assert not times.due(2, False)
