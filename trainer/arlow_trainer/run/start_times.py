"""The seconds of each part of a start, from the command to the first step."""

from __future__ import annotations

import time
from collections.abc import Callable


class StartTimes:
    """Cuts the time since a start began into parts, one after another.

    Attributes:
        seconds: of each part that is over, by its name, in order.
    """

    def __init__(self, began: float, now: Callable[[], float] = time.monotonic) -> None:
        """`began` is a time of `now`, which defaults to the machine's monotonic clock."""
        self._last, self._now = began, now
        self.seconds: dict[str, float] = {}

    def end(self, part: str) -> dict[str, float]:
        """Ends a part, which began where the last one ended; returns all so far."""
        now = self._now()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._last
        self._last = now
        return dict(self.seconds)
