"""How much time is left to a run that was asked to stop.

Its supervisor kills it at the end of the grace period. Most of that is for the checkpoint that is
being saved; the rest is for what is written last: events, status, logs, the lease.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

DEFAULT_S = 180.0
MAX_RESERVE_S = 10.0
"""Kept back from saving, for what is written last; a third of a short grace period."""
LOADING_WAIT_S = 2.0
"""Of each last wait of a run that is still loading: it has nothing to save."""
MAX_MARGIN_S = 2.0
"""The run ends that much before it would be killed; a tenth of a short grace period."""


class Grace:
    """The grace period of a run: without an end until `begin`. Times are those of `clock`.

    `loading` says that there is nothing to save yet, so that a stop is not to take long.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self.begun: float | None = None
        self.loading = False
        self._clock = clock

    def begin(self, at: float | None = None) -> None:
        """The run was asked to stop, now or `at` a time; only the first call counts."""
        if self.begun is None:
            self.begun = self._clock() if at is None else at

    def left(self) -> float:
        """Returns the seconds until the run must have ended; infinity where nothing stops it."""
        return self._until(min(MAX_MARGIN_S, self.seconds / 10))

    def left_to_save(self) -> float:
        """Returns the seconds until a save that is under way is given up; infinity likewise."""
        return self._until(min(MAX_RESERVE_S, self.seconds / 3))

    def within(self, limit_s: float) -> float:
        """Returns how long one of several last waits may take: `limit_s`, or less in a stop.

        At most a third of what is left, so that those after it have their share.
        """
        if self.loading and self.begun is not None:
            limit_s = min(limit_s, LOADING_WAIT_S)
        return min(limit_s, self.left() / 3)

    def _until(self, margin: float) -> float:
        if self.begun is None:
            return math.inf
        return max(0.0, self.begun + self.seconds - margin - self._clock())
