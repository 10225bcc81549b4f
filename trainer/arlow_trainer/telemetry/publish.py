"""Hands status and history to the store from a thread, so that no step waits for it."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Any

from arlow_trainer.config.status import RunStatus
from arlow_trainer.telemetry.reports import TelemetryOptions

PUBLISH_SECONDS = 15.0
CLOSE_TIMEOUT_S = 30.0
"""How long the end of a run waits for a store that does not answer."""

MAX_LINES = 100_000
"""Lines kept for a store that refuses them; older ones are dropped first."""


class Publisher:
    """Hands over what is new at once, every `interval` seconds, and once more when closed.

    A failure is told to `warn`, once until the store answers again; lines are kept for the next
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
        self._warn = warn
        self._interval = interval
        self._lines: list[dict[str, Any]] = []
        self._lock = Lock()
        self._failing = False
        self._last_status: RunStatus | None = None
        self._closing = Event()
        self._thread = Thread(target=self._run, name="telemetry-publisher", daemon=True)
        self._thread.start()

    def history(self, line: dict[str, Any]) -> None:
        """Queues a line of the run's curve."""
        if self._append_history is not None:
            with self._lock:
                self._lines.append(line)
                del self._lines[:-MAX_LINES]

    def close(self) -> None:
        """Hands over the rest and ends, at the latest after CLOSE_TIMEOUT_S."""
        self._closing.set()
        self._thread.join(CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        self._publish()
        while not self._closing.wait(self._interval):
            self._publish()
        self._publish()

    def _publish(self) -> None:
        try:
            self._hand_over_lines()
            status = self._status()
            if self._publish_status is not None and status != self._last_status:
                self._publish_status(status.model_dump_json(by_alias=True).encode())
                self._last_status = status
        except Exception as error:
            # Whatever the store raises, a run does not end for its telemetry.
            if not self._failing:
                self._warn(f"status and history cannot be written to the store: {error}")
            self._failing = True
        else:
            self._failing = False

    def _hand_over_lines(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
        if self._append_history is None or not lines:
            return
        try:
            self._append_history(lines)
        except BaseException:
            with self._lock:
                self._lines = (lines + self._lines)[-MAX_LINES:]
            raise
