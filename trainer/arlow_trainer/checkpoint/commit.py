"""One save among all ranks: every rank uploads its files, and rank 0 commits the checkpoint.

The ranks coordinate through one channel, a key-value store (c10d's, through `Ranks`). It does not
depend on the object store, which may be what failed.

1. Every rank marks the folder as a save under way (`save.json`), uploads its files and posts their
   sizes and SHA-256 to the channel.
2. Rank 0 waits for the posts of all ranks, compares the sizes with a listing of the object store
   and writes the manifest, last: only then does the checkpoint exist.
3. Rank 0 posts the outcome, for which the other ranks wait.

The mark is deleted after the manifest is written. A folder with files, but neither manifest nor
mark, was not written by this program, and the save refuses to write there.

A rank that fails posts that, too, and the save ends on all ranks. A save that fails at any point
leaves no manifest, hence no checkpoint, and does not touch the checkpoints before it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol

from pydantic import BaseModel, TypeAdapter

from arlow_trainer.checkpoint.layout import (
    MANIFEST,
    FileRecord,
    Manifest,
    SaveMark,
    checkpoint_name,
    manifest_key,
    save_mark_key,
)
from arlow_trainer.checkpoint.uploads import (
    BUG,
    FileWriter,
    Staging,
    as_arlow_error,
    delete_files,
    upload_files,
)
from arlow_trainer.config.errors import ArlowError, StoreError
from arlow_trainer.storage.failures import describe
from arlow_trainer.storage.store import Store

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


@dataclass
class Save:
    """One checkpoint being saved.

    Attributes:
        number: counts the saves of this attempt, alike on all ranks.
        submitted: when, by `time.monotonic`.
        marked: whether this rank has marked the folder as a save under way.
        upload_started: the files whose upload was started.
        may_be_committed: whether the uploaded files belong to a checkpoint, or may do so later.
    """

    step: int
    number: int
    files: Mapping[str, FileWriter | bytes]
    submitted: float
    marked: bool = False
    upload_started: list[str] = field(default_factory=list)
    may_be_committed: bool = False


class Committer:
    """One rank's part in the saves of a process group; see `BackgroundWriter` for the arguments."""

    def __init__(
        self,
        store: Store,
        rank: int,
        ranks: int,
        attempt: str,
        channel: KeyValueStore,
        staging: Path | None,
        commit_timeout_s: float,
    ) -> None:
        self._store, self._channel = store, channel
        self._rank, self._ranks, self._attempt = rank, ranks, attempt
        self._staging = Staging(store, attempt, rank, staging)
        self._commit_timeout_s = commit_timeout_s
        self._abandoned = threading.Event()
        # What belongs to a checkpoint is worth minutes; cleaning up after a failure is not.
        self._persistent = store.persistent(self._abandoned)
        self._first_posted = 1

    def abandon(self) -> None:
        """Gives up the save under way in another thread: it stops waiting for other ranks."""
        self._abandoned.set()

    def close(self) -> None:
        """Removes the staging folder."""
        self._staging.remove()

    def save(self, save: Save) -> int:
        """Uploads, and commits or waits for the commit; returns the checkpoint's size in bytes.

        Raises the ArlowError that ended the save: OtherRankFailed where it was another rank's.
        """
        try:
            records = self._upload_all(save)
            if self._rank > 0:
                return self._follow(save, records)
            return self._commit(save, records)
        except Exception as error:
            failure = as_arlow_error(error, self._store.url_of(checkpoint_name(save.step)))
            if failure is not error:
                failure.__cause__ = error
        # Outside the handler: inside, the store's errors below would have `failure` as context.
        if not isinstance(failure, OtherRankFailed):
            # Before the outcome: a rank that reads "void" then looks here for the cause.
            self._announce(save, "failure", f"Rank {self._rank}: {failure}")
        if self._rank == 0:
            self._undo_commit(save)
        if not save.may_be_committed:
            # At once, not at the next start: a full disk needs its space back for the next save.
            self._delete_uploaded(save)
        raise failure

    def _upload_all(self, save: Save) -> dict[str, FileRecord]:
        self._mark(save)
        if self._rank == 0:
            # An earlier attempt may have committed this step. While its files are replaced one by
            # one its manifest would describe a mixture, so the manifest goes first.
            self._persistent.delete(manifest_key(save.step))

        def begin(name: str) -> None:
            self._check_others(save)
            save.upload_started.append(name)

        folder = checkpoint_name(save.step)
        return upload_files(self._persistent, self._staging, folder, save.files, begin)

    def _mark(self, save: Save) -> None:
        """Writes the mark, alike on every rank: the first to come has it before its files."""
        folder = checkpoint_name(save.step)
        found = self._persistent.list(folder)
        if found and not found.keys() & {manifest_key(save.step), save_mark_key(save.step)}:
            raise StoreError(
                f"{self._store.url_of(folder)} holds {len(found)} files without {MANIFEST} that "
                "this run did not write, and nothing is written over them. If it is a checkpoint "
                "that is being restored, wait until it is complete and start again; otherwise move "
                "or remove the folder."
            )
        mark = SaveMark(step=save.step, attempt=self._attempt, started=datetime.now(UTC))
        self._persistent.write_bytes(save_mark_key(save.step), mark.to_bytes())
        save.marked = True

    def _follow(self, save: Save, own: Mapping[str, FileRecord]) -> int:
        # From the post on rank 0 may commit these files whatever happens here (a timeout, a lost
        # channel), so they may be deleted only when rank 0 has said that it will not.
        save.may_be_committed = True
        records = _FileRecords.dump_json(dict(own)).decode()
        try:
            self._channel.post(self._key(save.number, f"files/{self._rank}"), records)
        except Exception as error:
            raise self._channel_lost(save, error) from error
        deadline = time.monotonic() + self._commit_timeout_s
        posted = self._await(save, "outcome", "the commit by rank 0", deadline)
        outcome = Outcome.model_validate_json(posted)
        if outcome.state == "committed":
            return outcome.bytes
        save.may_be_committed = outcome.state == "unknown"
        raise self._other_rank_failed(save)

    def _commit(self, save: Save, own: Mapping[str, FileRecord]) -> int:
        files = self._collect(save, own)
        folder = checkpoint_name(save.step)
        self._check_sizes(folder, files)
        manifest = Manifest(
            step=save.step,
            created=datetime.now(UTC),
            attempt=self._attempt,
            ranks=self._ranks,
            files=files,
        )
        # Another rank may have given up waiting: do not commit what it has reported as failed.
        self._check_others(save)
        # Before the write: one that fails may have reached the store all the same.
        save.may_be_committed = True
        self._persistent.write_bytes(manifest_key(save.step), manifest.to_bytes())
        # Before the housekeeping: the other ranks wait for it, until their deadline.
        self._announce_outcome(save, Outcome(state="committed", bytes=manifest.total_bytes))
        self._remove_leftovers(folder, manifest)
        self._forget_earlier(save)
        return manifest.total_bytes

    def _collect(self, save: Save, own: Mapping[str, FileRecord]) -> dict[str, FileRecord]:
        files, deadline = dict(own), time.monotonic() + self._commit_timeout_s
        for rank in range(1, self._ranks):
            posted = self._await(save, f"files/{rank}", f"the files of rank {rank}", deadline)
            records = _FileRecords.validate_json(posted)
            twice = sorted(files.keys() & records.keys())
            if twice:
                raise ArlowError(
                    f"Two ranks wrote {twice[0]} of {checkpoint_name(save.step)}. {BUG}"
                )
            files.update(records)
        return files

    def _check_sizes(self, folder: str, files: Mapping[str, FileRecord]) -> None:
        stored = self._persistent.list(folder)
        for name, record in files.items():
            size = stored.get(f"{folder}/{name}")
            if size != record.size:
                found = "is missing" if size is None else f"has {size} bytes"
                raise StoreError(
                    f"{self._store.url_of(folder)}/{name} {found} after its upload of "
                    f"{record.size} bytes. Check the store, and that no other run writes there."
                )

    def _remove_leftovers(self, folder: str, manifest: Manifest) -> None:
        """Deletes the files that an earlier attempt at this step left in the folder."""
        known = {f"{folder}/{name}" for name in (*manifest.files, MANIFEST)}
        try:
            self._store.delete_all(self._store.list(folder).keys() - known)
        except ArlowError as error:
            log.warning("leftover files stay in %s: %s", folder, error)

    def _forget_earlier(self, save: Save) -> None:
        """Removes earlier saves from the channel, so that it does not grow with the run."""
        names = ["failure", "outcome", *(f"files/{rank}" for rank in range(1, self._ranks))]
        try:
            # All ranks have posted their files of this save, so none still reads an earlier one.
            for number in range(self._first_posted, save.number):
                for name in names:
                    self._channel.delete(self._key(number, name))
        except Exception:
            log.warning("earlier saves stay in the ranks' key-value store", exc_info=True)
        self._first_posted = save.number

    def _undo_commit(self, save: Save) -> None:
        """Rank 0, after its failure: makes the save void if it can, and posts the outcome."""
        if save.may_be_committed:
            # The write failed, but a server that timed out may have stored the manifest.
            try:
                self._store.delete(manifest_key(save.step))
            except ArlowError as error:
                log.warning("%s may exist or not: %s", checkpoint_name(save.step), error)
            else:
                save.may_be_committed = False
        # The other ranks keep or delete their files by this: they cannot know it themselves.
        outcome = Outcome(state="unknown" if save.may_be_committed else "void")
        self._announce_outcome(save, outcome)

    def _delete_uploaded(self, save: Save) -> None:
        folder = checkpoint_name(save.step)
        try:
            delete_files(self._store, folder, save.upload_started)
            # The mark last, by the last rank: what is left until then must be known for ours.
            left = set(self._store.list(folder))
            if save.marked and left == {save_mark_key(save.step)}:
                self._store.delete(save_mark_key(save.step))
                left = set()
            if not left:
                self._store.delete_empty_folders(folder)
        except ArlowError as error:
            log.warning("leftover files stay in %s: %s", folder, error)

    def _await(self, save: Save, name: str, what: str, deadline: float) -> str:
        """Returns what another rank posts of a save; raises StoreError where it does not."""
        pause = POLL_FIRST_S
        while (value := self._look(save, name)) is None:
            if self._rank == 0:
                self._check_others(save)
            else:
                # Another rank's failure ends the save when rank 0 has seen it: see `_follow`.
                self._check_abandoned(save)
            if time.monotonic() >= deadline:
                raise StoreError(
                    f"{self._store.url_of(checkpoint_name(save.step))} was not completed: "
                    f"{what} did not come within {self._commit_timeout_s:.0f} s. "
                    "Look at the other ranks' logs; the checkpoints before it are intact."
                )
            self._abandoned.wait(pause)
            pause = min(2 * pause, MAX_POLL_S)
        return value

    def _check_others(self, save: Save) -> None:
        self._check_abandoned(save)
        if self._look(save, "failure") is not None:
            raise self._other_rank_failed(save)

    def _check_abandoned(self, save: Save) -> None:
        if self._abandoned.is_set():
            folder = self._store.url_of(checkpoint_name(save.step))
            raise StoreError(f"{folder} was given up: the run is ending.")

    def _other_rank_failed(self, save: Save) -> OtherRankFailed:
        cause = self._look(save, "failure") or "Look at the other ranks' logs."
        return OtherRankFailed(
            f"{self._store.url_of(checkpoint_name(save.step))} was not completed: another rank's "
            f"save failed. {cause} The checkpoints before it are intact."
        )

    def _look(self, save: Save, name: str) -> str | None:
        key = self._key(save.number, name)
        try:
            return self._channel.get(key) if self._channel.has(key) else None
        except Exception as error:
            raise self._channel_lost(save, error) from error

    def _channel_lost(self, save: Save, error: Exception) -> StoreError:
        return StoreError(
            f"{self._store.url_of(checkpoint_name(save.step))} was not completed: the ranks' "
            f"key-value store does not answer ({describe(error)}). Another rank has probably "
            "ended: look at their logs. The checkpoints before it are intact."
        )

    def _announce_outcome(self, save: Save, outcome: Outcome) -> None:
        self._announce(save, "outcome", outcome.model_dump_json())

    def _announce(self, save: Save, name: str, value: str) -> None:
        try:
            self._channel.post(self._key(save.number, name), value)
        except Exception:
            # The save has ended here either way; the other ranks have ended, or time out.
            log.warning("the other ranks do not learn of %r", value, exc_info=True)

    def _key(self, number: int, name: str) -> str:
        # With the attempt and the number, a post of an earlier save is never taken for this one's.
        return f"checkpoint/{self._attempt}/{number}/{name}"
