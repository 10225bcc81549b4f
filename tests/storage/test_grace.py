"""How much time a run that was asked to stop has left, and for what."""

from __future__ import annotations

import math

import pytest

from arlow_trainer.storage.grace import Grace


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_without_a_stop_there_is_no_end() -> None:
    grace = Grace(30.0)
    assert grace.left() == grace.left_to_save() == math.inf
    assert grace.within(30.0) == 30.0


@pytest.mark.parametrize(
    ("seconds", "passed", "left", "to_save"),
    [
        (180.0, 0.0, 178.0, 170.0),
        (180.0, 170.0, 8.0, 0.0),
        (180.0, 1000.0, 0.0, 0.0),
        (30.0, 0.0, 28.0, 20.0),
        (9.0, 4.0, 4.1, 2.0),
    ],
)
def test_most_of_it_is_for_saving(
    seconds: float, passed: float, left: float, to_save: float
) -> None:
    clock = Clock()
    grace = Grace(seconds, clock)
    grace.begin()
    clock.now += passed
    assert grace.left() == pytest.approx(left)
    assert grace.left_to_save() == pytest.approx(to_save)
    assert grace.within(1000.0) == pytest.approx(left / 3)
    assert grace.within(0.001) == min(0.001, left / 3)


def test_only_the_first_request_counts() -> None:
    clock = Clock()
    grace = Grace(30.0, clock)
    grace.begin(995.0)
    grace.begin(1000.0)
    assert grace.left() == 23.0


def test_a_run_that_loads_waits_for_nothing_long() -> None:
    clock = Clock()
    grace = Grace(180.0, clock)
    grace.loading = True
    assert grace.within(30.0) == 30.0, "nobody has asked it to stop"
    grace.begin()
    assert grace.within(30.0) == 2.0
    assert grace.left() == 178.0
    clock.now += 175.0
    assert grace.within(30.0) == 1.0
    grace.loading = False
    clock.now -= 175.0
    assert grace.within(30.0) == 30.0
