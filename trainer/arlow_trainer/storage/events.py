"""A run's life in order, one JSON object a line, kept in the store over all its resumes.

A thread writes what is new, at most every few seconds.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from arlow_trainer.storage.jsonl import StoredLines, read_lines
from arlow_trainer.storage.store import Store

EVENTS_FILE = "events.jsonl"
FLUSH_S = 5.0
MAX_PENDING = 10_000
CLOSE_TIMEOUT_S = 30.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """Something that happened: when (UTC), what kind, and the kind's own fields."""

    time: datetime
    kind: str
    fields: dict[str, Any]


class EventLog:
    """Appends to `events.jsonl` of a run URL. Never raises into training: failures are logged.

    Written by one process (rank 0, which holds the lease); `record` may be called by any thread.
    """

    def __init__(self, store: Store, flush_s: float = FLUSH_S) -> None:
        self._lines = StoredLines(store, EVENTS_FILE)
        self._flush_s = flush_s
        self._pending: deque[bytes] = deque(maxlen=MAX_PENDING)
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="events", daemon=True)
        self._thread.start()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def record(self, kind: str, **fields: Any) -> None:
        """Notes an event of this moment; it reaches the store within a few seconds."""
        try:
            now = datetime.now(UTC).isoformat(timespec="microseconds")
            line = json.dumps({"time": now, "kind": kind, **fields}, default=str)
        except Exception:
            log.warning("the event %r cannot be written as JSON", kind, exc_info=True)
            return
        with self._changed:
            self._pending.append(line.encode() + b"\n")
            self._changed.notify_all()

    def flush(self) -> bool:
        """Writes what is pending now; False (and a warning in the log) when the store fails."""
        with self._writing:
            with self._changed:
                lines = list(self._pending)
            if not lines:
                return True
            try:
                self._lines.append(b"".join(lines))
            except Exception as error:
                log.warning("%d events are not in the store yet: %s", len(lines), error)
                return False
            with self._changed:
                # More may have come, and at the limit the oldest of these may have gone.
                while lines and self._pending and self._pending[0] is not lines[0]:
                    lines.pop(0)
                for _ in lines:
                    self._pending.popleft()
            return True

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Writes what is pending and ends the thread; a store that hangs holds the end up for at
        most `timeout_s` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.warning("the last events do not reach the store within %.0f s", timeout_s)

    def _work(self) -> None:
        closing = False
        while not closing:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closing)
                closing = self._closing
            self.flush()
            with self._changed:
                self._changed.wait_for(lambda: self._closing, timeout=self._flush_s)


def read_events(store: Store) -> list[Event]:
    """All events of a run URL in order; lines that cannot be read are passed over.

    Raises StoreError when the store cannot be read; a run without events has an empty list.
    """
    found = (_parsed(line) for line in read_lines(store, EVENTS_FILE))
    return [event for event in found if event is not None]


def _parsed(line: bytes) -> Event | None:
    try:
        content = json.loads(line)
        when = datetime.fromisoformat(content.pop("time"))
        return Event(when, str(content.pop("kind")), content)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
