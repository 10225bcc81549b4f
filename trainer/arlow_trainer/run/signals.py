"""Signals of a run: being asked to stop becomes a flag that the training loop reads."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from arlow_trainer.config.errors import Interrupted

_NOTICE = b"arlow: stopping as soon as all is saved; Ctrl-C (again) ends at once\n"


def stop_signals() -> set[signal.Signals]:
    """Returns what asks a run to stop: SIGTERM, Ctrl-C, and a hang-up unless nohup ignores it."""
    numbers = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    return {n for n in numbers if n == signal.SIGINT or signal.getsignal(n) != signal.SIG_IGN}


def announce_stop() -> None:
    """Says at once that the wish to stop was heard. Safe in a signal's handler."""
    if sys.__stderr__ is not None:
        os.write(sys.__stderr__.fileno(), _NOTICE)


class _Now(BaseException):
    """Asked to stop. No library's `except Exception` takes it for a failure of its own."""


class StopSignal:
    """While entered, remembers whether this process was asked to stop."""

    def __init__(self, tell: bool) -> None:
        """`tell`: whether the first signal is answered with a line on stderr."""
        self.raised = False
        self._tell = tell
        self._at_once = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        self._before = {number: signal.signal(number, self._note) for number in stop_signals()}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Around long work that leaves nothing to save: a signal raises Interrupted within it."""
        self._at_once = True
        try:
            self.check()
            yield
        except _Now:
            self.check()
        finally:
            self._at_once = False

    def check(self) -> None:
        """Raises Interrupted when this process was asked to stop, and nothing is to be saved."""
        if self.raised:
            raise Interrupted("stopped as asked while loading; the same command begins or goes on")

    def _note(self, number: int, _: FrameType | None) -> None:
        # The second Ctrl-C is for those who will not wait for a checkpoint.
        if self.raised and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self._tell and not self.raised:
            announce_stop()
        self.raised = True
        if self._at_once:
            raise _Now
