"""When the next checkpoint is due: by steps or by minutes, whichever comes first."""

from __future__ import annotations

import time
from collections.abc import Callable

from arlow_trainer.config.models import CheckpointSection


class CheckpointTimes:
    """Decides after every step whether a checkpoint is due.

    Ranks' clocks differ, so that one rank's `minutes_passed` decides for all.
    """

    def __init__(
        self, section: CheckpointSection, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._every_steps, self._every_seconds = section.every_steps, 60 * section.every_minutes
        self._clock = clock
        self._last = clock()

    def minutes_passed(self) -> bool:
        """Whether the last checkpoint, or the first step, is everyMinutes ago."""
        return self._every_seconds > 0 and self._clock() - self._last >= self._every_seconds

    def due(self, step: int, minutes_passed: bool) -> bool:
        """Whether to save after a step; if so, the minutes count from now on."""
        by_steps = self._every_steps > 0 and step % self._every_steps == 0
        if by_steps or minutes_passed:
            self._last = self._clock()
        return by_steps or minutes_passed
