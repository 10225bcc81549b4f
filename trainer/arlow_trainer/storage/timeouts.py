"""How long a store may stay silent: the clients' own limits multiply, and some have none."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import wait
from typing import Any, TypeVar

from fsspec.callbacks import Callback

T = TypeVar("T")


class StoreTimeout(TimeoutError):
    """A store gave no answer before the deadline; another attempt has no time left."""


_LOOK_S = 0.5


class Deadline:
    """The time that one operation has, its repetitions included.

    It ends `limit_s` seconds after the beginning, or after the last part of a file that `callback`
    saw arrive: a large file takes as long as it takes. It also ends when `given_up` is set.
    `within` returns how many of some seconds it has: fewer once a run is asked to stop.
    """

    def __init__(
        self,
        limit_s: float,
        given_up: threading.Event | None = None,
        within: Callable[[float], float] | None = None,
    ) -> None:
        self._limit_s, self._given_up, self._within = limit_s, given_up, within
        self.callback = _PartArrived(self.renew)
        self.renew()

    def renew(self) -> None:
        """Starts the time anew."""
        self._allowed_s = self._limit_s if self._within is None else self._within(self._limit_s)
        self._end = time.monotonic() + self._allowed_s

    def _left(self) -> float:
        """Returns the seconds until the end, which comes near when the run is asked to stop."""
        if self._within is not None and self._allowed_s == self._limit_s:
            allowed_s = self._within(self._limit_s)
            if allowed_s < self._limit_s:
                self._allowed_s = allowed_s
                self._end = min(self._end, time.monotonic() + allowed_s)
        return self._end - time.monotonic()

    def wait(self, work: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> Any:
        """Runs `work` in a loop of another thread. Raises StoreTimeout, and what `work` raises."""
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            while not future.done():
                left = self._left()
                hurried = self._allowed_s < self._limit_s
                if left <= 0 and not hurried:
                    raise StoreTimeout(f"it has not answered for {self._limit_s:.0f} s")
                if left <= 0 or (self._given_up is not None and self._given_up.is_set()):
                    raise StoreTimeout("it had not answered when the run had to end")
                endless = self._given_up is None and self._within is None
                wait([future], left if endless else min(left, _LOOK_S))
            return future.result()
        finally:
            future.cancel()


class BoundedFileSystem:
    """An fsspec file system whose operations end at a deadline, where it works over a network."""

    def __init__(self, fs: Any, deadline: Deadline) -> None:
        self._fs, self._deadline = fs, deadline

    def __getattr__(self, name: str) -> Any:
        # fsspec gives every coroutine `_name` a twin `name` that waits for it without an end.
        work = getattr(self._fs, f"_{name}", None)
        if not self._fs.async_impl or not inspect.iscoroutinefunction(work):
            return getattr(self._fs, name)
        return lambda *args, **options: self._deadline.wait(work(*args, **options), self._fs.loop)

    def renew(self) -> None:
        """Gives what follows time of its own, as what tidies up needs it."""
        self._deadline.renew()

    def finish(self, work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
        """Runs `work(file system)`, a coroutine function, in the file system's loop."""
        result: T = self._deadline.wait(work(self._fs), self._fs.loop)
        return result


class _PartArrived(Callback):  # type: ignore[misc]
    """Called by fsspec for each part of a file that has arrived."""

    def __init__(self, renew: Callable[[], None]) -> None:
        super().__init__()
        self._renew = renew

    def call(self, *args: Any, **options: Any) -> None:
        self._renew()
