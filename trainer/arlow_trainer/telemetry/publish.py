"""Writes status and history to the store from a thread, so that no step waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from arlow_trainer.config.status import RunStatus
from arlow_trainer.storage.outbox import CLOSE_TIMEOUT_S, Outbox
from arlow_trainer.telemetry.reports import TelemetryOptions

PUBLISH_SECONDS = 15.0

MAX_LINES = 100_000
"""Lines held for a store that refuses them; the oldest are dropped first."""


class Publisher:
    """Writes what is new at once, every `interval` seconds, and once more when closed.

    A failure is reported to `warn`, once until the store answers again; lines are held for the next
    try.
    """

    def __init__(
        self,
        options: TelemetryOptions,
        status: Callable[[], RunStatus],
        warn: Callable[[str], None],
        interval: float = PUBLISH_SECONDS,
    ) -> None:
        self._publish_status = options.publish_status
        self._append_history = options.append_history
        self._status = status
        self._last_status: RunStatus | None = None
        # Idle, too: the status changes without a new line.
        self._outbox: Outbox[dict[str, Any]] = Outbox(
            "status and history",
            self._publish,
            warn,
            max_items=MAX_LINES,
            interval_s=interval,
            idle_too=True,
        )

    def history(self, line: dict[str, Any]) -> None:
        """Queues a line of the run's curve."""
        if self._append_history is not None:
            self._outbox.put(line)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Writes the rest and ends, at the latest after `timeout_s` seconds."""
        self._outbox.close(timeout_s)

    def _publish(self, lines: list[dict[str, Any]]) -> None:
        status = self._status()
        if self._publish_status is not None and status != self._last_status:
            self._publish_status(status.model_dump_json(by_alias=True).encode())
            self._last_status = status
        # Last: lines that were written must not be written again because the status failed.
        if self._append_history is not None and lines:
            self._append_history(lines)
