"""Writes status and history to the store from a thread, so that no step waits for it."""

from __future__ import annotations

import time
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
        self._publish_status, self._status = options.publish_status, status
        self._last_status: RunStatus | None = None
        # Apart, so that a status that is refused does not hold up the history.
        self._statuses: Outbox[None] = Outbox(
            # Also without items: the status changes all the time.
            "status",
            self._write_status,
            warn,
            max_items=1,
            interval_s=interval,
            idle_too=True,
        )
        self._lines: Outbox[dict[str, Any]] | None = None
        if options.append_history is not None:
            self._lines = Outbox(
                "history lines",
                options.append_history,
                warn,
                max_items=MAX_LINES,
                interval_s=interval,
            )

    def history(self, line: dict[str, Any]) -> None:
        """Queues a line of the run's curve."""
        if self._lines is not None:
            self._lines.put(line)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Writes the rest and ends, at the latest after `timeout_s` seconds."""
        end = time.monotonic() + timeout_s
        if self._lines is not None:
            self._lines.close(timeout_s)
        self._statuses.close(max(0.0, end - time.monotonic()))

    def _write_status(self, _: list[None]) -> None:
        status = self._status()
        if self._publish_status is not None and status != self._last_status:
            self._publish_status(status.model_dump_json(by_alias=True).encode())
            self._last_status = status
