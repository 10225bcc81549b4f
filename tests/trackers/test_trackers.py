"""Trackers that work, hang, refuse, or cannot be opened; none of them costs a call any time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import pytest

from arlow_trainer.trackers import Outcome, Picture, Record, Scalars, Trackers
from arlow_trainer.trackers.records import flat_settings
from arlow_trainer.trackers.trackers import MAX_PENDING
from support.waiting import wait_until


class Taking:
    """Takes records, refuses them while `refusing`, and waits while `free` is not set."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.outcomes: list[Outcome] = []
        self.threads: set[str] = set()
        self.tries, self.refusing = 0, False
        self.free = threading.Event()
        self.free.set()

    def open(self, warn: Callable[[str], None]) -> Taking:
        self.threads.add(threading.current_thread().name)
        return self

    def write(self, records: Sequence[Record]) -> None:
        self.tries += 1
        assert self.free.wait(60)
        if self.refusing:
            raise OSError("no answer")
        self.records += records

    def end(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    @property
    def steps(self) -> list[int]:
        return [record.step for record in self.records]


@pytest.fixture
def taking() -> Taking:
    return Taking()


@pytest.fixture
def warnings() -> list[str]:
    return []


def test_records_and_the_outcome_arrive_in_order_on_another_thread(
    taking: Taking, warnings: list[str]
) -> None:
    trackers = Trackers({"one": taking.open}, warnings.append, interval_s=0.01)
    wait_until(lambda: taking.threads)
    assert threading.current_thread().name not in taking.threads
    for step in range(20):
        trackers.scalars(step, {"loss": 1.0})
    trackers.picture(20, "reconstruction/image", "pictures/step-20-image.png")
    trackers.close("stopped", 30)
    assert taking.steps == list(range(21))
    assert isinstance(taking.records[0], Scalars)
    assert isinstance(taking.records[-1], Picture)
    assert abs(taking.records[0].time - time.time()) < 600
    assert taking.outcomes == ["stopped"]
    assert warnings == []


def test_a_tracker_that_hangs_holds_up_nobody(taking: Taking, warnings: list[str]) -> None:
    hung = Taking()
    hung.free.clear()
    trackers = Trackers({"hung": hung.open, "well": taking.open}, warnings.append, interval_s=0.01)
    trackers.scalars(0, {"loss": 1.0})
    wait_until(lambda: hung.tries)
    for step in range(1, 3 * MAX_PENDING):
        trackers.scalars(step, {"loss": 1.0})
        if step % 100 == 0:
            wait_until(lambda step=step: len(taking.records) == step + 1)
    trackers.close("finished", 0.2)
    assert taking.steps == list(range(3 * MAX_PENDING)), "the other one has all"
    assert taking.outcomes == ["finished"]
    does_not_keep_up, rest = warnings
    assert does_not_keep_up == "hung does not keep up: the oldest scalars and pictures are dropped"
    assert f"({MAX_PENDING}) did not reach hung within 0 s" in rest
    assert f"{2 * MAX_PENDING + 1:,} before them were dropped" in rest
    hung.free.set()


def test_a_tracker_that_refuses_is_one_warning_and_gets_all_later(
    taking: Taking, warnings: list[str]
) -> None:
    taking.refusing = True
    trackers = Trackers({"one": taking.open}, warnings.append, interval_s=0.01)
    for step in range(10):
        trackers.scalars(step, {"loss": 1.0})
    wait_until(lambda: taking.tries > 5)
    assert warnings == ["scalars and pictures cannot be written to one: no answer"]
    taking.refusing = False
    trackers.close("finished", 30)
    assert taking.steps == list(range(10))
    assert len(warnings) == 1


def test_a_tracker_that_cannot_be_opened_is_tried_again(
    taking: Taking, warnings: list[str]
) -> None:
    refusals = iter([ConnectionError("refused")] * 3)

    def open_late(warn: Callable[[str], None]) -> Taking:
        if (error := next(refusals, None)) is not None:
            raise error
        warn("here at last")
        return taking

    trackers = Trackers({"one": open_late}, warnings.append, interval_s=0.01)
    trackers.scalars(1, {"loss": 1.0})
    wait_until(lambda: taking.records)
    trackers.close("finished", 30)
    assert warnings == [
        "scalars and pictures cannot be written to one: refused",
        "one: here at last",
    ]


def test_no_trackers_are_nothing(warnings: list[str]) -> None:
    trackers = Trackers({}, warnings.append)
    trackers.scalars(1, {"loss": 1.0})
    trackers.close("finished", 30)
    assert warnings == []


def test_settings_are_named_as_set_names_them() -> None:
    nested = {"preset": "tiny", "data": {"images": {"path": "a"}, "workers": 2}, "betas": [0.9, 1]}
    assert flat_settings(nested) == {
        "preset": "tiny",
        "data.images.path": "a",
        "data.workers": 2,
        "betas": [0.9, 1],
    }
