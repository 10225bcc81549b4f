"""Delivering to a store or a service on a thread of its own: no step of training waits for it."""

from __future__ import annotations

import logging
import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import islice
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

CLOSE_TIMEOUT_S = 30.0

log = logging.getLogger(__name__)

T = TypeVar("T")


class Closeable(AbstractContextManager[Any, None]):
    """A context manager whose exit calls `close()`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Ends what works in the background."""


class Outbox(Closeable, Generic[T]):
    """A bounded queue whose items a thread delivers in order. Never raises into training.

    Items whose delivery fails stay first in the queue for the next try. When more than `max_items`
    are not delivered yet, the oldest are dropped. A failure is warned about once, until a delivery
    succeeds again, and so is what is dropped, with its number when that is over. `put` may be
    called by any thread.
    """

    def __init__(
        self,
        what: str,
        deliver: Callable[[list[T]], None],
        warn: Callable[[str], None],
        *,
        where: str = "the store",
        max_items: int,
        max_batch: int | None = None,
        interval_s: float = 0.0,
        idle_too: bool = False,
    ) -> None:
        """Starts the thread.

        Args:
            what: the items' name, in the plural: for the warnings and the thread.
            deliver: is given all items that wait, `max_batch` at most; raises where it fails.
            warn: is called with a text, on the thread, in `put` or in `close`.
            where: where the items go, for the warnings.
            max_items: how many undelivered items are held, those being delivered included.
            interval_s: the time between two deliveries, and before a failed one is tried again.
            idle_too: whether `deliver` is called at every interval, with no items if there are
                none: for a `deliver` that also writes state of its own.
        """
        self._what, self._deliver, self._warn = what, deliver, _never_raising(warn)
        self._where = where
        self._max_items, self._max_batch = max_items, max_batch
        self._interval_s, self._idle_too = interval_s, idle_too
        self._items: deque[T] = deque()
        self._first = 0  # the number of `_items[0]`, counting every item since the start
        self._dropped = 0  # not delivered, since the last delivery
        self._failing = self._closing = False
        self._changed = threading.Condition()
        self._delivering = threading.Lock()
        # A daemon: a process that is ending for another reason must not wait for a store.
        self._thread = threading.Thread(target=self._work, name=what, daemon=True)
        self._thread.start()

    @property
    def full(self) -> bool:
        """Whether the next `put` drops an item."""
        return len(self._items) >= self._max_items

    def put(self, item: T) -> None:
        """Queues an item; returns at once."""
        with self._changed:
            first_dropped = self.full and not self._dropped
            if self.full:
                self._remove_first()
                self._dropped += 1
            self._items.append(item)
            self._changed.notify_all()
        if first_dropped:
            self._warn(f"{self._where} does not keep up: the oldest {self._what} are dropped")

    def flush(self) -> bool:
        """Delivers a batch now; returns False, after a warning, where that fails."""
        with self._delivering:
            with self._changed:
                batch = list(islice(self._items, self._max_batch))
                begin, end = self._first, self._first + len(batch)
            if not batch and not self._idle_too:
                return True
            try:
                self._deliver(batch)
            except Exception as error:
                if not self._failing:
                    self._warn(f"{self._what} cannot be written to {self._where}: {error}")
                self._failing = True
                return False
            self._failing = False
            with self._changed:
                # At the limit, some of the batch may have been dropped meanwhile.
                dropped = self._dropped - (min(self._first, end) - begin)
                self._dropped = 0
                while self._first < end:
                    self._remove_first()
            if dropped > 0:
                self._warn(
                    f"{dropped:,} {self._what} were dropped before {self._where} took others"
                )
            return True

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Delivers the rest and ends the thread; waits at most `timeout_s` seconds for a store that
        does not answer."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        if self._thread.is_alive() or self._items:
            count = f" ({len(self._items)})" if self._items else ""
            within = f" within {timeout_s:.0f} s" if self._thread.is_alive() else ""
            dropped = f"; {self._dropped:,} before them were dropped" if self._dropped else ""
            self._warn(f"the last {self._what}{count} did not reach {self._where}{within}{dropped}")

    def _remove_first(self) -> None:
        self._items.popleft()
        self._first += 1

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._idle_too:
                    self._changed.wait_for(lambda: self._items or self._closing)
                closing = self._closing
            delivered = self.flush()
            with self._changed:
                if closing and not (delivered and self._items):
                    return
                self._changed.wait_for(lambda: self._closing, timeout=self._interval_s)


def _never_raising(warn: Callable[[str], None]) -> Callable[[str], None]:
    def safely(text: str) -> None:
        try:
            warn(text)
        except Exception:
            log.exception("a warning could not be reported: %s", text)

    return safely
