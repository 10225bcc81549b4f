"""Signals that come before the command is ready for them: held until something handles them.

Imports nothing but the standard library, since importing the commands takes seconds, in which
SIGTERM would end the process without a word or, in a container's first process, be lost.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

_before: dict[int, Any] = {}
_held: dict[int, float] = {}
_raised: frozenset[int] = frozenset()


class StopNow(BaseException):
    """A request to stop. A BaseException, so that no library's `except Exception` swallows it."""


def hold_signals() -> None:
    """Holds the signals that ask a run for something from now on; those ignored stay ignored."""
    for number in _NUMBERS:
        before = signal.getsignal(number)
        if before in (signal.SIG_DFL, signal.default_int_handler):
            _before[number] = before
            signal.signal(number, _hold)


def release_signals() -> None:
    """Has signals act as before `hold_signals`, also those that are held."""
    for number, before in _before.items():
        signal.signal(number, before)
    _before.clear()
    held = list(_held)
    _held.clear()
    for number in held:
        signal.raise_signal(number)


def held_since(numbers: Collection[int]) -> float | None:
    """Returns when the first of some signals came, by `time.monotonic`; None where none is held."""
    return min((at for number, at in _held.items() if number in numbers), default=None)


@contextmanager
def held_raised(numbers: Collection[int]) -> Iterator[None]:
    """While entered, some of the signals that are held raise StopNow, also one that came before."""
    global _raised
    _raised = frozenset(numbers)
    try:
        if held_since(numbers) is not None:
            raise StopNow
        yield
    finally:
        _raised = frozenset()


def _hold(number: int, _: FrameType | None) -> None:
    _held.setdefault(number, time.monotonic())
    if number in _raised:
        raise StopNow
