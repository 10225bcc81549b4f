"""Writes checkpoints while training continues: one worker thread, one save at a time.

What a save does, and how the ranks coordinate it, is in `commit`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from arlow_trainer.checkpoint.commit import Committer
from arlow_trainer.checkpoint.layout import check_file_name, checkpoint_name
from arlow_trainer.checkpoint.posts import KeyValueStore
from arlow_trainer.checkpoint.uploads import FileWriter, Save, as_arlow_error
from arlow_trainer.config.errors import ArlowError, StoreError
from arlow_trainer.storage.outbox import Closeable
from arlow_trainer.storage.store import Store

__all__ = ["BackgroundWriter", "FileWriter", "OutOfTime", "SaveEvent"]

COMMIT_TIMEOUT_S = 1800.0
ABANDON_S = 5.0
_LOOK_S = 0.5

log = logging.getLogger(__name__)


class OutOfTime(StoreError):
    """A save that would take longer than the run has left."""


@dataclass(frozen=True)
class SaveEvent:
    """The end of one save: committed when `error` is None.

    `bytes` is the size of the whole checkpoint (all ranks), `duration_s` the time from `submit` to
    the commit.
    """

    step: int
    url: str
    duration_s: float
    bytes: int
    error: str | None = None


class BackgroundWriter(Closeable):
    """Saves checkpoints of one process group; every rank has one and submits the same steps."""

    def __init__(
        self,
        store: Store,
        rank: int,
        ranks: int,
        attempt: str,
        on_event: Callable[[SaveEvent], None],
        *,
        channel: KeyValueStore,
        staging: Path | None = None,
        commit_timeout_s: float = COMMIT_TIMEOUT_S,
    ) -> None:
        """Starts nothing yet.

        Args:
            store: where the run's checkpoints are written.
            rank, ranks: this rank and how many there are.
            attempt: 32 hex digits, the same on all ranks and new at every start of the group.
            on_event: called on the worker thread at the end of every save.
            channel: what the ranks coordinate a save through.
            staging: the folder for files that wait for their upload; by default inside a local
                store, and otherwise in the temporary directory.
            commit_timeout_s: how long a rank that has uploaded its files waits for the others.
        """
        if not 0 <= rank < ranks:
            raise ValueError(f"rank {rank} is not in a group of {ranks}")
        self._store = store
        self._committer = Committer(store, rank, ranks, attempt, channel, staging, commit_timeout_s)
        self._on_event = on_event
        self._changed = threading.Condition()
        self._pending: Save | None = None
        self._failure: ArlowError | None = None
        self._submitted = 0
        self._closing = False
        self._thread: threading.Thread | None = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(abandon=error is not None)

    def submit(self, step: int, files: Mapping[str, FileWriter | bytes]) -> float:
        """Submits a checkpoint to be saved; returns the seconds waited for the save before it.

        `files` maps paths inside the checkpoint to their bytes, or to a callable that writes them
        to a local path; nothing of it may change afterwards. Raises the ArlowError of an earlier
        save that failed; the new one is then not started.
        """
        for name in files:
            check_file_name(name)
        started = time.monotonic()
        with self._changed:
            if self._closing:
                raise ValueError("the writer is closed")
            self._changed.wait_for(lambda: self._pending is None)
            waited = time.monotonic() - started
            # Counts calls, not saves: so the ranks' numbers agree whatever happens on each.
            self._submitted += 1
            self._raise_failure()
            self._pending = Save(step, self._submitted, dict(files), time.monotonic())
            if self._thread is None:
                # A daemon: a process that is ending for another reason must not wait for a store.
                self._thread = threading.Thread(
                    target=self._work, name="checkpoint-writer", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()
        return waited

    def poll(self) -> bool:
        """Whether no save is under way; raises the failure of an earlier one."""
        with self._changed:
            self._raise_failure()
            return self._pending is None

    def wait(self, time_left: Callable[[], float] = lambda: math.inf) -> None:
        """Returns when everything submitted is committed; raises the failure of a save.

        When the seconds that `time_left` returns are over, the save under way is given up and
        OutOfTime is raised.
        """
        with self._changed:
            while self._pending is not None:
                if time_left() <= 0:
                    self._committer.abandon()
                    raise OutOfTime(
                        f"{self._store.url_of(checkpoint_name(self._pending.step))} was given up: "
                        "it was not complete when the run had to end"
                    )
                self._changed.wait(_LOOK_S)
            self._raise_failure()

    def close(self, abandon: bool = False, timeout_s: float = ABANDON_S) -> None:
        """Ends the worker after the save under way, and removes the staging folder.

        With `abandon` the save under way is given up, and its end is waited for `timeout_s` seconds
        at most: other ranks may be gone, and an end must not wait for them.
        """
        if abandon:
            self._committer.abandon()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout_s if abandon else None)
        self._committer.close()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending is not None or self._closing)
                save = self._pending
            if save is None:
                return
            failure, size = None, 0
            try:
                size = self._committer.save(save)
            except Exception as error:
                failure = as_arlow_error(error, self._store.url_of(checkpoint_name(save.step)))
                log.error("%s is not saved: %s", checkpoint_name(save.step), failure)
            self._report(save, size, failure)
            with self._changed:
                self._failure = failure
                # Nor may this thread hold what was saved until the next save.
                self._pending = save = failure = None
                self._changed.notify_all()

    def _report(self, save: Save, size: int, failure: ArlowError | None) -> None:
        event = SaveEvent(
            step=save.step,
            url=self._store.url_of(checkpoint_name(save.step)),
            duration_s=time.monotonic() - save.submitted,
            bytes=size,
            error=None if failure is None else str(failure),
        )
        try:
            self._on_event(event)
        except Exception:
            log.exception("on_event failed for a save's end")
