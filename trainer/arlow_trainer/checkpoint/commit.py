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
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from arlow_trainer.checkpoint.layout import (
    MANIFEST,
    FileRecord,
    Manifest,
    SaveMark,
    checkpoint_name,
    manifest_key,
    save_mark_key,
)
from arlow_trainer.checkpoint.posts import KeyValueStore, OtherRankFailed, Outcome, Posts
from arlow_trainer.checkpoint.uploads import (
    BUG,
    Save,
    Staging,
    as_arlow_error,
    delete_files,
    upload_files,
)
from arlow_trainer.config.errors import ArlowError, StoreError
from arlow_trainer.storage.store import Store

log = logging.getLogger(__name__)


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
        self._store = store
        self._rank, self._ranks, self._attempt = rank, ranks, attempt
        self._staging = Staging(store, attempt, rank, staging)
        self._abandoned = threading.Event()
        self._posts = Posts(
            channel, rank, ranks, attempt, store.url, self._abandoned, commit_timeout_s
        )
        # What belongs to a checkpoint is worth minutes; cleaning up after a failure is not.
        self._persistent = store.persistent(self._abandoned)

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
            self._posts.announce_failure(save, failure)
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
            self._posts.check_others(save)
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
        self._posts.post_files(save, own)
        outcome = self._posts.await_outcome(save, self._posts.deadline())
        if outcome.state == "committed":
            return outcome.bytes
        save.may_be_committed = outcome.state == "unknown"
        raise self._posts.other_rank_failed(save)

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
        self._posts.check_others(save)
        # Before the write: one that fails may have reached the store all the same.
        save.may_be_committed = True
        self._persistent.write_bytes(manifest_key(save.step), manifest.to_bytes())
        # Before the housekeeping: the other ranks wait for it, until their deadline.
        self._posts.announce_outcome(save, Outcome(state="committed", bytes=manifest.total_bytes))
        self._remove_leftovers(folder, manifest)
        self._posts.forget_before(save)
        return manifest.total_bytes

    def _collect(self, save: Save, own: Mapping[str, FileRecord]) -> dict[str, FileRecord]:
        files, deadline = dict(own), self._posts.deadline()
        for rank in range(1, self._ranks):
            records = self._posts.await_files(save, rank, deadline)
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
        self._posts.announce_outcome(save, outcome)

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
