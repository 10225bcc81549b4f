"""Signals of a run: a request to stop sets a flag that the training loop reads."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from arlow_trainer.config.errors import Interrupted, StoreError
from arlow_trainer.run.held_signals import StopNow, held_raised, held_since
from arlow_trainer.run.options import TrainOptions
from arlow_trainer.storage.callbacks import interrupt
from arlow_trainer.storage.grace import Grace
from arlow_trainer.storage.streams import write_stderr

_NOTICE = (
    "arlow: stopping after a checkpoint is saved; press Ctrl-C (again) or send the signal again "
    "to end at once\n"
)
MIN_SECOND_S = 0.2
"""A signal that follows another this soon is the same request: `timeout` and SLURM signal a process
and then its group."""
_WATCH_S = 0.2


def stop_signals(options: TrainOptions) -> set[signal.Signals]:
    """Returns what asks a run to stop.

    SIGTERM, Ctrl-C, a hang-up unless nohup ignores it, and what `--stop-signal` names.
    """
    numbers = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, options.stop_number}
    return {n for n in numbers if n == signal.SIGINT or signal.getsignal(n) != signal.SIG_IGN}


WHILE_LOADING = "stopped as asked while loading; the same command starts or resumes the run"


@contextmanager
def interruptible(options: TrainOptions) -> Iterator[None]:
    """For what precedes a StopSignal: a signal raises Interrupted, also one that came before."""
    try:
        with held_raised(stop_signals(options)):
            yield
    except StopNow:
        raise Interrupted(WHILE_LOADING) from None


class StopSignal:
    """While entered, remembers whether this process was asked to stop.

    Attributes:
        raised: whether it was.
        grace: how much time is left since then.
        forward: called once with the first signal, or at once where that has come already.
    """

    def __init__(
        self, options: TrainOptions, end_at_once: Callable[[int | None], None] | None = None
    ) -> None:
        """Prepares the signals of a launcher, which has `end_at_once`, or of a rank.

        Args:
            options: name the stop signal and the grace period.
            end_at_once: ends the process, because of a second signal (its number) or because the
                grace period is over (None, on another thread). The first signal is then answered
                with a line on stderr.
        """
        self.raised = False
        self.grace = Grace(options.grace_s)
        self._options = options
        self._end_at_once = end_at_once
        self._forward: Callable[[], None] | None = None
        self._interruptible = False
        self._before: dict[int, Any] = {}
        self._ended = False

    def __enter__(self) -> StopSignal:
        numbers = stop_signals(self._options)
        self._before = {number: signal.signal(number, self._note) for number in numbers}
        if (at := held_since(numbers)) is not None:
            self._begin(at)
        if self._end_at_once is not None:
            threading.Thread(target=self._watch, name="grace", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended = True
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def request(self, at: float | None = None) -> None:
        """Asks this process to stop, as a signal does, now or `at` a time of `time.monotonic`."""
        self.raised = True
        self.grace.begin(at)

    def forward_to(self, forward: Callable[[], None]) -> None:
        """Has the first signal forwarded, also where it has come already."""
        self._forward = forward
        if self.raised:
            forward()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """For long work that leaves nothing to save: a signal raises Interrupted within it.

        At its end at the latest, in place of what the work returns or raises: a library may have
        swallowed the request and gone on with half of what it was doing, and a store that has not
        answered in a stop says so with an error of its own.
        """
        try:
            self._interruptible = True
            self.check()
            yield
            self.check()
        except BaseException:
            self.check()
            raise
        finally:
            self._interruptible = False

    @contextmanager
    def obeyed(self) -> Iterator[None]:
        """For what writes to a `stoppable` store, each write whole or given up by the store.

        Raises Interrupted before it, and in place of a StoreError within it, where a stop was asked
        for: nothing is to be saved.
        """
        self.check()
        try:
            yield
        except StoreError:
            self.check()
            raise

    def check(self) -> None:
        """Raises Interrupted when this process was asked to stop, and nothing is to be saved."""
        if self.raised:
            raise Interrupted(WHILE_LOADING)

    def _note(self, number: int, _: FrameType | None) -> None:
        begun = self.grace.begun
        if begun is not None:
            if self._end_at_once is not None and time.monotonic() - begun > MIN_SECOND_S:
                self._end_at_once(number)
            return
        self._begin(time.monotonic())
        if self._interruptible:
            interrupt(StopNow())

    def _begin(self, at: float) -> None:
        self.request(at)
        if self._end_at_once is not None:
            write_stderr(_NOTICE)
        if self._forward is not None:
            self._forward()

    def _watch(self) -> None:
        """Ends the process when its grace period is over, wherever the main thread stands."""
        while self.grace.left() > 0:
            if self._ended:
                return
            time.sleep(_WATCH_S)
        assert self._end_at_once is not None
        self._end_at_once(None)
