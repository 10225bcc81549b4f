"""Whether the operator still looks after its runs: what its liveness probe asks."""

from __future__ import annotations

import time
from collections.abc import Callable

# Three full passes that are due each minute.
TOO_OLD_S = 180.0


class Unhealthy(Exception):
    """No full pass for too long."""


class Health:
    """When all runs were looked at last."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()

    def full_pass(self) -> None:
        """Tells that all runs were listed, and that a worker has taken each."""
        self._last = self._clock()

    def age(self) -> float:
        """Returns the seconds since the last full pass."""
        return self._clock() - self._last

    def check(self) -> float:
        """Returns the seconds since the last full pass. Raises Unhealthy where they are too many.

        kopf answers 200 whatever a probe returns, and 500 where it raises.
        """
        age = self.age()
        if age > TOO_OLD_S:
            raise Unhealthy(f"no full pass for {age:.0f} s")
        return age
