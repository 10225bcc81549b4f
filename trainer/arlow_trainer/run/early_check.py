"""Reads and checks the newest checkpoint while a rank's imports go on, which take as long.

It imports no torch, and it only reads: it runs before the run holds its lease.
"""

from __future__ import annotations

import threading

from arlow_trainer.checkpoint.reader import Problem, inspect, steps_in, verify
from arlow_trainer.config import ArlowPretrain
from arlow_trainer.config.errors import ArlowError
from arlow_trainer.storage.options import store_of
from arlow_trainer.storage.store import Store


class EarlyCheck:
    """The check of the checkpoint that was the newest when a rank started, in a thread."""

    def __init__(self, run: ArlowPretrain) -> None:
        """Starts the check."""
        self._run = run
        self._intact: int | None = None
        self._thread = threading.Thread(target=self._work, name="early check", daemon=True)
        self._thread.start()

    def verify(self, store: Store, step: int) -> list[Problem]:
        """Returns what `checkpoint.reader.verify` does, at once where the step is checked already.

        Only that a checkpoint is intact is believed: one with problems is read again, now that no
        other run can be writing it.
        """
        self._thread.join()
        return [] if step == self._intact else verify(store, step)

    def _work(self) -> None:
        try:
            store = store_of(self._run)
            for step in reversed(steps_in(store)):
                info = inspect(store, step)
                if info is not None and info.valid:
                    if not verify(store, step):
                        self._intact = step
                    return
        except ArlowError:
            return  # Whoever needs the store meets it again, and says so.
