"""The events of a run in order, over all its resumes: JSON lines in its URL's `events.jsonl`.

A thread writes what is new, at most every few seconds.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from arlow_trainer.config.shown_text import redact_urls
from arlow_trainer.storage.json_text import parse_object
from arlow_trainer.storage.jsonl import StoredLines, read_lines
from arlow_trainer.storage.outbox import CLOSE_TIMEOUT_S, Closeable, Outbox
from arlow_trainer.storage.store import Store

EVENTS_FILE = "events.jsonl"
FLUSH_S = 5.0
MAX_PENDING = 10_000

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """Something that happened: when (UTC), what kind, and the kind's own fields."""

    time: datetime
    kind: str
    fields: dict[str, Any]


class EventLog(Closeable):
    """Appends to `events.jsonl` of a run URL. Never raises into training: failures are logged.

    Written by one process (rank 0, which holds the lease); `record` may be called by any thread.
    """

    def __init__(self, store: Store, flush_s: float = FLUSH_S) -> None:
        lines = StoredLines(store, EVENTS_FILE)
        self._outbox: Outbox[bytes] = Outbox(
            "events",
            lambda batch: lines.append(b"".join(batch)),
            log.warning,
            max_items=MAX_PENDING,
            interval_s=flush_s,
        )

    def record(self, kind: str, **fields: Any) -> None:
        """Records an event of this moment; it reaches the store within a few seconds."""
        try:
            now = datetime.now(UTC).isoformat(timespec="microseconds")
            line = redact_urls(json.dumps({"time": now, "kind": kind, **fields}, default=str))
        except Exception:
            log.warning("the event %r cannot be written as JSON", kind, exc_info=True)
            return
        self._outbox.put(line.encode() + b"\n")

    def flush(self) -> bool:
        """Writes what is pending now; False (and a warning in the log) when the store fails."""
        return self._outbox.flush()

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Writes what is pending and ends the thread; waits at most `timeout_s` seconds for a store
        that does not answer."""
        self._outbox.close(timeout_s)


def read_events(store: Store) -> list[Event]:
    """All events of a run URL in order; lines that cannot be read are left out.

    Raises StoreError when the store cannot be read; a run without events has an empty list.
    """
    found = (_parsed(line) for line in read_lines(store, EVENTS_FILE))
    return [event for event in found if event is not None]


def _parsed(line: bytes) -> Event | None:
    content = parse_object(line)
    try:
        if content is None:
            return None
        when = datetime.fromisoformat(content.pop("time"))
        return Event(when, str(content.pop("kind")), content)
    except (ValueError, KeyError, TypeError):
        return None
