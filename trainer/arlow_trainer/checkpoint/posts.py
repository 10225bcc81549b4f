"""What the ranks of a run tell each other about its saves, through one key-value store."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Literal, Protocol

from pydantic import BaseModel, TypeAdapter

from arlow_trainer.checkpoint.layout import FileRecord, checkpoint_name
from arlow_trainer.checkpoint.uploads import Save
from arlow_trainer.config.errors import StoreError
from arlow_trainer.storage.failures import describe

POLL_FIRST_S = 0.05
MAX_POLL_S = 1.0

_FileRecords = TypeAdapter(dict[str, FileRecord])

log = logging.getLogger(__name__)


class KeyValueStore(Protocol):
    """Strings under keys that all ranks share. Called from the worker thread; never waits long."""

    def post(self, key: str, value: str) -> None:
        """Sets a key's value for every rank to see; the last one posted counts."""

    def has(self, key: str) -> bool:
        """Whether any rank has posted a value under this key."""

    def get(self, key: str) -> str:
        """Returns the value of a key that `has` found."""

    def delete(self, key: str) -> None:
        """Removes a key; one that is not there is no error."""


class OtherRankFailed(StoreError):
    """A save that ends because it failed on another rank, which raises the failure itself."""

    second_hand = True


class Outcome(BaseModel):
    """How a save ended, as rank 0 posts it.

    committed: the checkpoint exists and has `bytes` bytes. void: it does not exist and never will.
    unknown: rank 0 tried to write the manifest, and whether it is there is not known.
    """

    state: Literal["committed", "void", "unknown"]
    bytes: int = 0


class Posts:
    """The posts of one rank, and those that it reads, in the saves of one attempt.

    A wait for another rank ends with a StoreError at its deadline, `timeout_s` seconds after
    `deadline` was called, or when `abandoned` is set.
    """

    def __init__(
        self,
        channel: KeyValueStore,
        rank: int,
        ranks: int,
        attempt: str,
        url: str,
        abandoned: threading.Event,
        timeout_s: float,
    ) -> None:
        self._channel, self._abandoned, self._timeout_s = channel, abandoned, timeout_s
        self._rank, self._ranks, self._attempt, self._url = rank, ranks, attempt, url
        self._first_number = 1

    def deadline(self) -> float:
        """Returns until when, by `time.monotonic`, a wait that begins now may last."""
        return time.monotonic() + self._timeout_s

    def post_files(self, save: Save, records: Mapping[str, FileRecord]) -> None:
        """Posts the files that this rank has uploaded. Raises StoreError."""
        value = _FileRecords.dump_json(dict(records)).decode()
        try:
            self._channel.post(self._key(save.number, f"files/{self._rank}"), value)
        except Exception as error:
            raise self._channel_lost(save, error) from error

    def await_files(self, save: Save, rank: int, deadline: float) -> dict[str, FileRecord]:
        """Returns the files that another rank has uploaded. Raises StoreError."""
        posted = self._await(save, f"files/{rank}", f"the files of rank {rank}", deadline)
        return _FileRecords.validate_json(posted)

    def await_outcome(self, save: Save, deadline: float) -> Outcome:
        """Returns how rank 0 says that a save ended. Raises StoreError."""
        posted = self._await(save, "outcome", "the commit by rank 0", deadline)
        return Outcome.model_validate_json(posted)

    def announce_outcome(self, save: Save, outcome: Outcome) -> None:
        """Posts how a save ended."""
        self._announce(save, "outcome", outcome.model_dump_json())

    def announce_failure(self, save: Save, failure: Exception) -> None:
        """Posts why a save fails on this rank."""
        self._announce(save, "failure", f"Rank {self._rank}: {failure}")

    def check_others(self, save: Save) -> None:
        """Raises OtherRankFailed where a rank has posted a failure, StoreError when abandoned."""
        self._check_abandoned(save)
        if self._look(save, "failure") is not None:
            raise self.other_rank_failed(save)

    def other_rank_failed(self, save: Save) -> OtherRankFailed:
        """Returns the error to raise for a failure on another rank."""
        cause = self._look(save, "failure") or "Look at the other ranks' logs."
        return OtherRankFailed(
            f"{self._of(save)} was not completed: another rank's save failed. {cause} The "
            "checkpoints before it are intact."
        )

    def forget_before(self, save: Save) -> None:
        """Removes earlier saves, so that the key-value store does not grow with the run.

        When all ranks have posted their files of this save, none reads an earlier one any more.
        """
        names = ["failure", "outcome", *(f"files/{rank}" for rank in range(1, self._ranks))]
        try:
            for number in range(self._first_number, save.number):
                for name in names:
                    self._channel.delete(self._key(number, name))
        except Exception:
            log.warning("earlier saves stay in the ranks' key-value store", exc_info=True)
        self._first_number = save.number

    def _await(self, save: Save, name: str, what: str, deadline: float) -> str:
        pause = POLL_FIRST_S
        while (value := self._look(save, name)) is None:
            if self._rank == 0:
                self.check_others(save)
            else:
                # Another rank's failure ends the save when rank 0 has seen it: its outcome says
                # whether the files that this rank has uploaded are to be kept.
                self._check_abandoned(save)
            if time.monotonic() >= deadline:
                raise StoreError(
                    f"{self._of(save)} was not completed: {what} did not come within "
                    f"{self._timeout_s:.0f} s. Look at the other ranks' logs; the checkpoints "
                    "before it are intact."
                )
            self._abandoned.wait(pause)
            pause = min(2 * pause, MAX_POLL_S)
        return value

    def _check_abandoned(self, save: Save) -> None:
        if self._abandoned.is_set():
            raise StoreError(f"{self._of(save)} was given up: the run is ending.")

    def _look(self, save: Save, name: str) -> str | None:
        key = self._key(save.number, name)
        try:
            return self._channel.get(key) if self._channel.has(key) else None
        except Exception as error:
            raise self._channel_lost(save, error) from error

    def _announce(self, save: Save, name: str, value: str) -> None:
        try:
            self._channel.post(self._key(save.number, name), value)
        except Exception:
            # The save has ended here either way; the other ranks have ended, or time out.
            log.warning("the other ranks do not learn of %r", value, exc_info=True)

    def _channel_lost(self, save: Save, error: Exception) -> StoreError:
        return StoreError(
            f"{self._of(save)} was not completed: the ranks' key-value store does not answer "
            f"({describe(error)}). Another rank has probably ended: look at their logs. The "
            "checkpoints before it are intact."
        )

    def _of(self, save: Save) -> str:
        return f"{self._url}/{checkpoint_name(save.step)}"

    def _key(self, number: int, name: str) -> str:
        # With the attempt and the number, a post of an earlier save is never taken for this one's.
        return f"checkpoint/{self._attempt}/{number}/{name}"
