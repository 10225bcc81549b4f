"""One save among ranks: all upload, and rank 0 commits, the manifest last.

Every rank uploads its own files and then a part record that names them. Rank 0 waits for the parts
of all ranks and commits the checkpoint by writing its manifest. A save that fails at any point
leaves no manifest, hence no checkpoint, and the ones before it untouched.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeVar

from arlow_trainer.checkpoint.layout import (
    MANIFEST,
    PARTS,
    FileRecord,
    Manifest,
    PartRecord,
    checkpoint_name,
    manifest_key,
    part_key,
)
from arlow_trainer.checkpoint.staging import Staging
from arlow_trainer.config.errors import ArlowError, StoreError
from arlow_trainer.storage.errors import MissingObject, local_error
from arlow_trainer.storage.failures import Failure, classify, describe
from arlow_trainer.storage.store import Store

POLL_FIRST_S = 0.05
MAX_POLL_S = 2.0

# What becomes of a save that fails on some rank: rank 0's last word on it.
_COMMITTED, _VOID, _UNKNOWN = "committed", "void", "unknown"

FileWriter = Callable[[Path], None]
"""Writes one file of a checkpoint to the local path given; runs in the worker thread."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class KeyValueStore(Protocol):
    """Where ranks leave each other words; independent of the store, which may be what failed.

    The methods are called from the worker thread and must not block for long.
    """

    def tell(self, key: str, words: str) -> None:
        """Leaves words for every rank; the last ones told count."""

    def told(self, key: str) -> bool:
        """Whether any rank left words there."""

    def words(self, key: str) -> str:
        """The words, where `told` says that there are some."""


class OtherRankFailed(StoreError):
    """A save that ends because it failed on another rank, which has the failure first-hand."""

    second_hand = True


@dataclass
class Save:
    """One checkpoint on its way.

    `begun` names the files whose upload was begun. `handed_over` is when this rank's part record,
    or on rank 0 the manifest, was about to be written: from then on the files may be committed.
    """

    step: int
    number: int
    files: Mapping[str, FileWriter | bytes]
    submitted: float
    begun: list[str] = field(default_factory=list)
    handed_over: float | None = None


class Committer:
    """One rank's side of the saves of a process group; `BackgroundWriter` says what it is given."""

    def __init__(
        self,
        store: Store,
        rank: int,
        ranks: int,
        attempt: str,
        board: KeyValueStore | None,
        staging: Path | None,
        commit_timeout_s: float,
    ) -> None:
        self._store = store
        self._rank = rank
        self._ranks = ranks
        self._attempt = attempt
        self._board = board
        self._staging = Staging(store, attempt, rank, staging)
        self._commit_timeout_s = commit_timeout_s
        self._abandoned = threading.Event()

    def abandon(self) -> None:
        """Gives up the save under way in another thread: it waits for no rank any more."""
        self._abandoned.set()

    def close(self) -> None:
        """Removes the staging folder."""
        self._staging.remove()

    def save(self, save: Save) -> int:
        """Uploads, commits or waits for the commit; returns the checkpoint's size in bytes."""
        try:
            records = self._upload_all(save)
            if self._rank > 0:
                return self._await_commit(save, records)
            size = self._commit(save, records)
        except Exception as error:
            failure = as_arlow_error(error, self._store.url_of(checkpoint_name(save.step)))
            if failure is not error:
                failure.__cause__ = error
        else:
            self._tell(self._verdict_key(save), _COMMITTED)
            return size
        # Outside the handler: inside, the store would take the failure for the reason of its own.
        if not isinstance(failure, OtherRankFailed):
            self._tell(self._failure_key(save), f"Rank {self._rank}: {failure}")
        if self._can_be_deleted(save):
            # A full disk has to get its space back.
            self._delete_uploaded(save)
        raise failure

    def _upload_all(self, save: Save) -> dict[str, FileRecord]:
        if self._rank == 0:
            # While files are replaced, a manifest of an earlier attempt would describe a mixture.
            self._store.delete(manifest_key(save.step))
        self._staging.prepare()
        records: dict[str, FileRecord] = {}
        for name in sorted(save.files):
            self._check_others(save)
            save.begun.append(name)
            records[name] = self._upload(save, name)
        return records

    def _upload(self, save: Save, name: str) -> FileRecord:
        key = f"{checkpoint_name(save.step)}/{name}"
        content = save.files[name]
        if isinstance(content, bytes):
            self._store.write_bytes(key, content)
            return FileRecord(size=len(content), sha256=hashlib.sha256(content).hexdigest())
        staged = self._staging.path(name)
        try:
            content(staged)
            with staged.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                size = file.tell()
            self._store.put_file(staged, key, move=True)
        except ArlowError:
            raise
        except Exception as error:
            raise as_arlow_error(error, staged) from error
        finally:
            staged.unlink(missing_ok=True)
        return FileRecord(size=size, sha256=sha256)

    def _await_commit(self, save: Save, own: Mapping[str, FileRecord]) -> int:
        part = PartRecord(attempt=self._attempt, save=save.number, files=dict(own))
        save.handed_over = time.monotonic()
        self._store.write_bytes(part_key(save.step, self._rank), part.to_bytes())

        def read() -> Manifest | None:
            data = self._read_if_there(manifest_key(save.step))
            manifest = None if data is None else Manifest.from_bytes(data)
            # The hashes tell this save's manifest from one of an earlier try of the same attempt.
            ours = (
                manifest is not None
                and manifest.attempt == self._attempt
                and own.items() <= manifest.files.items()
            )
            return manifest if ours else None

        return self._await(save, "the commit by rank 0", read).total_bytes

    def _commit(self, save: Save, own: Mapping[str, FileRecord]) -> int:
        files = dict(own)
        for rank in range(1, self._ranks):
            part = self._await_part(save, rank)
            twice = sorted(files.keys() & part.files.keys())
            if twice:
                raise ArlowError(
                    f"Two ranks wrote {twice[0]} of {checkpoint_name(save.step)}. "
                    "This is a defect of the trainer: please report it."
                )
            files.update(part.files)
        folder = checkpoint_name(save.step)
        self._check_sizes(folder, files)
        manifest = Manifest(
            step=save.step,
            created=datetime.now(UTC),
            attempt=self._attempt,
            ranks=self._ranks,
            files=files,
        )
        self._check_others(save)
        save.handed_over = time.monotonic()
        self._store.write_bytes(manifest_key(save.step), manifest.to_bytes())
        self._tidy(folder, manifest)
        return manifest.total_bytes

    def _await_part(self, save: Save, rank: int) -> PartRecord:
        def read() -> PartRecord | None:
            data = self._read_if_there(part_key(save.step, rank))
            part = None if data is None else PartRecord.from_bytes(data)
            ours = part is not None and (part.attempt, part.save) == (self._attempt, save.number)
            return part if ours else None

        return self._await(save, f"the files of rank {rank}", read)

    def _check_sizes(self, folder: str, files: Mapping[str, FileRecord]) -> None:
        stored = self._store.list(folder)
        for name, record in files.items():
            size = stored.get(f"{folder}/{name}")
            if size != record.size:
                found = "is missing" if size is None else f"has {size} bytes"
                raise StoreError(
                    f"{self._store.url_of(folder)}/{name} {found} after its upload of "
                    f"{record.size} bytes. Check the store, and that no other run writes there."
                )

    def _tidy(self, folder: str, manifest: Manifest) -> None:
        """Removes the part records and what an earlier attempt at this step left behind."""
        kept = {f"{folder}/{name}" for name in (*manifest.files, MANIFEST)}
        try:
            for key in self._store.list(folder):
                if key not in kept:
                    self._store.delete(key)
            self._store.delete_tree(f"{folder}/{PARTS}")
        except ArlowError as error:
            log.warning("leftovers stay in %s: %s", folder, error)

    def _read_if_there(self, key: str) -> bytes | None:
        try:
            return self._store.read_bytes(key)
        except MissingObject:
            return None

    def _await(self, save: Save, what: str, read: Callable[[], T | None]) -> T:
        deadline = time.monotonic() + self._commit_timeout_s
        pause = POLL_FIRST_S
        while True:
            self._check_others(save)
            try:
                found = read()
            except ValueError:
                found = None  # damaged: what an earlier attempt left, to be replaced by its rank
            if found is not None:
                return found
            if time.monotonic() >= deadline:
                raise StoreError(
                    f"{self._store.url_of(checkpoint_name(save.step))} was not completed: "
                    f"{what} did not come within {self._commit_timeout_s:.0f} s. "
                    "Look at the other ranks' logs; the checkpoints before it are intact."
                )
            self._abandoned.wait(pause)
            pause = min(2 * pause, MAX_POLL_S)

    def _check_others(self, save: Save) -> None:
        folder = self._store.url_of(checkpoint_name(save.step))
        if self._abandoned.is_set():
            raise StoreError(f"{folder} was given up: the run is ending on a failure.")
        if self._board is not None and self._board.told(self._failure_key(save)):
            cause = self._board.words(self._failure_key(save))
            raise OtherRankFailed(
                f"{folder} was not completed: another rank's save failed. {cause} "
                "The checkpoints before it are intact."
            )

    def _can_be_deleted(self, save: Save) -> bool:
        """Whether the files of a save that failed here belong to no checkpoint, now and later.

        Once a rank has handed its files over, rank 0 alone knows, and only if it has not tried to
        write the manifest, or has taken it back.
        """
        if self._rank > 0:
            return save.handed_over is None or self._await_verdict(save) == _VOID
        void = save.handed_over is None or self._take_manifest_back(save)
        self._tell(self._verdict_key(save), _VOID if void else _UNKNOWN)
        return void

    def _take_manifest_back(self, save: Save) -> bool:
        try:
            self._store.delete(manifest_key(save.step))
        except ArlowError:
            return False
        return True

    def _await_verdict(self, save: Save) -> str:
        assert save.handed_over is not None
        deadline = save.handed_over + self._commit_timeout_s
        key = self._verdict_key(save)
        while self._board is not None:
            if self._board.told(key):
                return self._board.words(key)
            if time.monotonic() >= deadline or self._abandoned.wait(POLL_FIRST_S):
                break
        return _UNKNOWN

    def _delete_uploaded(self, save: Save) -> None:
        folder = checkpoint_name(save.step)
        keys = [f"{folder}/{name}" for name in save.begun]
        try:
            for key in (part_key(save.step, self._rank), *keys):
                self._store.delete(key)
        except ArlowError as error:
            log.warning("leftovers stay in %s: %s", folder, error)

    def _failure_key(self, save: Save) -> str:
        return f"save-failed/{self._attempt}/{save.number}"

    def _verdict_key(self, save: Save) -> str:
        return f"save-verdict/{self._attempt}/{save.number}"

    def _tell(self, key: str, words: str) -> None:
        if self._board is None:
            return
        try:
            self._board.tell(key, words)
        except Exception:
            # The other ranks' end: whoever waits for the words is gone, too.
            log.warning("other ranks are not told %r", words, exc_info=True)


def as_arlow_error(error: Exception, what: Path | str) -> ArlowError:
    """An ArlowError as it is; another one as a failure of the disk under `what`, or a defect."""
    if isinstance(error, ArlowError):
        return error
    if isinstance(error, OSError) or classify(error, local=True) is Failure.FULL:
        return local_error(Path(what), error)
    return ArlowError(
        f"Saving {what} failed: {type(error).__name__}: {describe(error)}. "
        "This is a defect of the trainer: please report it. The checkpoints before it are intact."
    )
