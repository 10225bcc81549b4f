"""A request to stop within work that leaves nothing to save."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress

import pytest

from arlow_trainer.config.errors import DataError, Interrupted
from arlow_trainer.run.held_signals import StopNow
from arlow_trainer.run.options import TrainOptions
from arlow_trainer.run.signals import StopSignal
from arlow_trainer.storage.callbacks import called_back


def ask() -> None:
    signal.raise_signal(signal.SIGTERM)


def swallowed() -> None:
    """As by a library that ignores what it calls raises, and goes on."""
    with suppress(StopNow):
        ask()


def told_otherwise() -> None:
    """As by a library that then takes the file for damaged."""
    swallowed()
    raise DataError("every sample tried was broken")


def called_from_c() -> None:
    """The call goes on to its end, also where it makes another."""
    went_on = False
    with suppress(StopNow), called_back():
        ask()
        with called_back():
            went_on = True
    assert went_on
    raise DataError("the call failed")


@pytest.mark.parametrize("work", [ask, swallowed, told_otherwise, called_from_c])
def test_a_stop_is_told_whatever_the_work_makes_of_it(work: Callable[[], None]) -> None:
    with StopSignal(TrainOptions()) as stop:
        with pytest.raises(Interrupted), stop.interruptible():
            work()
        assert stop.raised


def test_errors_are_told_where_nobody_asked_to_stop() -> None:
    with StopSignal(TrainOptions()) as stop:
        with pytest.raises(DataError), stop.interruptible():
            raise DataError("damaged")
        with stop.interruptible():
            pass
