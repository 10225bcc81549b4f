"""A queue of keys: each waits at most once, and never runs beside itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class WorkQueue(Generic[Key]):
    """Keys that wait for a worker, at once or after a time. For one event loop."""

    def __init__(self) -> None:
        self._ready: dict[Key, None] = {}
        self._running: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._changed = asyncio.Event()

    def add(self, key: Key) -> None:
        """Has a key run soon; once more, where it runs already."""
        self._cancel(key)
        if key in self._running:
            self._again.add(key)
            return
        self._ready[key] = None
        self._changed.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """Has a key run after a time, unless it is to run sooner anyway."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if key in self._ready or (timer and timer.when() <= loop.time() + seconds):
            return
        self._cancel(key)
        self._timers[key] = loop.call_later(seconds, self.add, key)

    async def take(self) -> Key:
        """Waits for a key and returns it; `done` must follow."""
        while not self._ready:
            self._changed.clear()
            await self._changed.wait()
        key = next(iter(self._ready))
        del self._ready[key]
        self._running.add(key)
        return key

    async def drained(self) -> None:
        """Waits until every key that waits now has been taken."""
        waiting = set(self._ready)
        while waiting := waiting & self._ready.keys():
            await asyncio.sleep(0.1)

    def done(self, key: Key) -> None:
        """Tells that a key's run is over."""
        self._running.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def __len__(self) -> int:
        return len(self._ready)

    def _cancel(self, key: Key) -> None:
        with contextlib.suppress(KeyError):
            self._timers.pop(key).cancel()
