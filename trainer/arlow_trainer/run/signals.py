"""Signals of a run: a request to stop sets a flag that the training loop reads."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from arlow_trainer.config.errors import Interrupted

_NOTICE = b"arlow: stopping after a checkpoint is saved; press Ctrl-C (again) to end at once\n"


def stop_signals() -> set[signal.Signals]:
    """Returns what asks a run to stop: SIGTERM, Ctrl-C, and a hang-up unless nohup ignores it."""
    numbers = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    return {n for n in numbers if n == signal.SIGINT or signal.getsignal(n) != signal.SIG_IGN}


def announce_stop() -> None:
    """Confirms on stderr that the run will stop. Safe in a signal handler."""
    if sys.__stderr__ is not None:
        os.write(sys.__stderr__.fileno(), _NOTICE)


class _StopNow(BaseException):
    """A request to stop. A BaseException, so that no library's `except Exception` swallows it."""


class StopSignal:
    """While entered, remembers whether this process was asked to stop."""

    def __init__(self, announce: bool) -> None:
        """`announce`: whether the first signal is answered with a line on stderr."""
        self.raised = False
        self._announce = announce
        self._interruptible = False
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
    def interruptible(self) -> Iterator[None]:
        """For long work that leaves nothing to save: a signal raises Interrupted within it."""
        self._interruptible = True
        try:
            self.check()
            yield
        except _StopNow:
            self.check()
        finally:
            self._interruptible = False

    def check(self) -> None:
        """Raises Interrupted when this process was asked to stop, and nothing is to be saved."""
        if self.raised:
            raise Interrupted(
                "stopped as asked while loading; the same command starts or resumes the run"
            )

    def _note(self, number: int, _: FrameType | None) -> None:
        # A second Ctrl-C does not wait for a checkpoint.
        if self.raised and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self._announce and not self.raised:
            announce_stop()
        self.raised = True
        if self._interruptible:
            raise _StopNow
