"""Hands what a run logs to its experiment trackers, each on a thread of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from arlow_trainer.storage.outbox import Outbox
from arlow_trainer.trackers.records import Outcome, Picture, Record, Scalars, Tracker

INTERVAL_S = 15.0
MAX_PENDING = 1_000
"""Records held for a tracker that does not take them; the oldest are dropped first."""

OpenTracker = Callable[[Callable[[str], None]], Tracker]
"""Opens a tracker; is given what it may warn with. Called on the tracker's thread, again where it
raises."""


class Trackers:
    """The trackers of a run, for rank 0. A call never blocks, and never raises into training.

    A tracker that is slow or away gets its records later, the oldest not at all; that, and the
    reason, is a warning.
    """

    def __init__(
        self,
        openers: Mapping[str, OpenTracker],
        warn: Callable[[str], None],
        interval_s: float = INTERVAL_S,
    ) -> None:
        """Opens all trackers, by their names, on their threads."""
        self._deliveries = [
            _Delivery(name, opener, warn, interval_s) for name, opener in openers.items()
        ]

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Queues values at a step. May be called from any thread."""
        self._put(Scalars(step, time.time(), values))

    def picture(self, step: int, name: str, key: str) -> None:
        """Queues a picture that is in the run's URL as `key`. May be called from any thread."""
        self._put(Picture(step, time.time(), name, key))

    def close(self, outcome: Outcome, timeout_s: float) -> None:
        """Writes what is queued and ends all trackers, after `timeout_s` seconds at the latest."""
        if self._deliveries:
            self._put(outcome)
            with ThreadPoolExecutor(len(self._deliveries)) as pool:
                list(pool.map(lambda delivery: delivery.close(timeout_s), self._deliveries))

    def _put(self, item: Record | Outcome) -> None:
        for delivery in self._deliveries:
            delivery.put(item)


class _Delivery:
    """One tracker, its queue and its thread."""

    def __init__(
        self, name: str, opener: OpenTracker, warn: Callable[[str], None], interval_s: float
    ) -> None:
        self._open: Callable[[], Tracker] = lambda: opener(lambda text: warn(f"{name}: {text}"))
        self._tracker: Tracker | None = None
        self._outbox: Outbox[Record | Outcome] = Outbox(
            "scalars and pictures",
            self._deliver,
            warn,
            where=name,
            max_items=MAX_PENDING,
            interval_s=interval_s,
            idle_too=True,
        )
        self.put, self.close = self._outbox.put, self._outbox.close

    def _deliver(self, items: Sequence[Record | Outcome]) -> None:
        if self._tracker is None:
            self._tracker = self._open()
        records = [item for item in items if isinstance(item, Scalars | Picture)]
        if records:
            self._tracker.write(records)
        for item in items:
            if isinstance(item, str):
                self._tracker.end(item)
