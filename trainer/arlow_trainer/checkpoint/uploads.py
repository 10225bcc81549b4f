"""Files of a checkpoint on their way to the store: staged on a disk, then uploaded side by side.

A store answers each request after a while, however small the object: one at a time, forty files
take forty times as long. Large files are uploaded one at a time, so that staging takes the space of
one of them and `MAX_STAGED` more.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from arlow_trainer.checkpoint.layout import FileRecord
from arlow_trainer.config.errors import ArlowError
from arlow_trainer.storage.errors import local_error
from arlow_trainer.storage.failures import Failure, classify, describe
from arlow_trainer.storage.store import Store

MAX_UPLOADS = 8
MAX_STAGED = 128 * 2**20
BUG = "This is an internal error (a bug in Arlow): please report it."

FileWriter = Callable[[Path], None]
"""Writes one file of a checkpoint to the local path given; runs in the worker thread."""


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


def upload_files(
    store: Store,
    staging: Staging,
    folder: str,
    files: Mapping[str, FileWriter | bytes],
    begin: Callable[[str], None],
) -> dict[str, FileRecord]:
    """Uploads files to a folder of the store; returns their sizes and SHA-256.

    `begin` is called in this thread with each name before its upload and may raise. The first
    failure, as an ArlowError, ends it: what has not begun does not begin, and what is under way is
    waited for, so that nothing of it reaches the store afterwards.
    """
    staging.prepare()
    records: dict[str, FileRecord] = {}
    uploads = _Uploads()
    # Those that need no staging first: they do not wait for one that does.
    names = sorted(files, key=lambda name: (not isinstance(files[name], bytes), name))
    try:
        for name in names:
            content, key = files[name], f"{folder}/{name}"
            if isinstance(content, bytes):
                begin(name)
                records[name] = FileRecord(
                    size=len(content), sha256=hashlib.sha256(content).hexdigest()
                )
                uploads.start(_writing(store, key, content))
                continue
            uploads.wait_for_space()
            begin(name)
            staged = staging.path(name)
            records[name] = _stage(content, staged)
            uploads.start(_moving(store, key, staged), records[name].size)
        uploads.finish()
    finally:
        uploads.settle()
    return records


def delete_files(store: Store, folder: str, names: list[str]) -> None:
    """Deletes files of a folder of the store. Raises the first failure's ArlowError."""
    uploads = _Uploads()
    try:
        for name in names:
            uploads.start(_deleting(store, f"{folder}/{name}"))
        uploads.finish()
    finally:
        uploads.settle()


class Staging:
    """Where a rank writes a checkpoint's files before they are uploaded.

    A folder of one rank of one attempt, beside those of the run's other ranks. By default it lies
    inside a local store, so that files are moved there and not copied, and otherwise in the
    temporary directory.
    """

    def __init__(self, store: Store, attempt: str, rank: int, configured: Path | None) -> None:
        self._attempt = attempt
        if configured is None and store.local_path is not None:
            self._run = store.local_path / ".staging"
        else:
            run = hashlib.sha256(store.url.encode()).hexdigest()[:16]
            self._run = (configured or Path(tempfile.gettempdir())) / f"arlow-staging-{run}"
        self._own = self._run / f"{attempt}-{rank}"

    def prepare(self) -> None:
        """Makes the folder and removes those of dead attempts; raises StoreError."""
        try:
            self._own.mkdir(parents=True, exist_ok=True)
            for left in self._run.iterdir():
                # This run holds the lease: the process that wrote another attempt's files is dead.
                if not left.name.startswith(f"{self._attempt}-"):
                    shutil.rmtree(left, ignore_errors=True)
        except OSError as error:
            raise local_error(self._own, error) from error

    def path(self, name: str) -> Path:
        """Where to write the file that will be `name` in the checkpoint."""
        # Files of two folders may have one name and be here at the same time.
        return self._own / quote(name, safe="")

    def remove(self) -> None:
        """Removes the folder and its content."""
        shutil.rmtree(self._own, ignore_errors=True)
        with contextlib.suppress(OSError):  # the other ranks' folders are still in it
            self._run.rmdir()


def as_arlow_error(error: Exception, what: Path | str) -> ArlowError:
    """An ArlowError as it is; another one as a failure of the disk under `what`, or as a bug."""
    if isinstance(error, ArlowError):
        return error
    if isinstance(error, OSError) or classify(error, local=True) is Failure.FULL:
        return local_error(Path(what), error)
    return ArlowError(
        f"Saving {what} failed: {type(error).__name__}: {describe(error)}. {BUG} "
        "The checkpoints before it are intact."
    )


class _Uploads:
    """A few uploads at a time, each in a thread of its own, until the first one fails.

    Daemon threads: a process that is ending for another reason must not wait for a store.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = self._staged = 0
        self._failure: Exception | None = None

    def start(self, work: Callable[[], None], staged: int = 0) -> None:
        """Starts `work`, of which `staged` bytes lie on the disk, when fewer than MAX_UPLOADS run.

        Raises the first failure of those before it.
        """
        self._wait(lambda: self._running < MAX_UPLOADS)
        with self._changed:
            self._running += 1
            self._staged += staged
        threading.Thread(
            target=self._work, args=(work, staged), name="checkpoint-upload", daemon=True
        ).start()

    def wait_for_space(self) -> None:
        """Returns when another file may be staged; raises as `start` does."""
        self._wait(lambda: self._staged <= MAX_STAGED)

    def finish(self) -> None:
        """Returns when all have ended; raises as `start` does."""
        self._wait(lambda: self._running == 0)

    def settle(self) -> None:
        """Returns when none is under way, whether it succeeded or failed."""
        with self._changed:
            self._changed.wait_for(lambda: self._running == 0)

    def _wait(self, ready: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._failure is not None or ready())
            if self._failure is not None:
                raise self._failure

    def _work(self, work: Callable[[], None], staged: int) -> None:
        failure: Exception | None = None
        try:
            work()
        except Exception as error:
            failure = error
        with self._changed:
            self._failure = self._failure or failure
            self._running -= 1
            self._staged -= staged
            self._changed.notify_all()


def _stage(content: FileWriter, staged: Path) -> FileRecord:
    try:
        content(staged)
        # Of the local file, before the upload: what the upload damages must not match.
        with staged.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            return FileRecord(size=file.tell(), sha256=sha256)
    except Exception as error:
        staged.unlink(missing_ok=True)
        failure = as_arlow_error(error, staged)
        if failure is error:
            raise
        raise failure from error


def _moving(store: Store, key: str, staged: Path) -> Callable[[], None]:
    def move() -> None:
        try:
            store.put_file(staged, key, move=True)
        finally:
            staged.unlink(missing_ok=True)

    return move


def _writing(store: Store, key: str, content: bytes) -> Callable[[], None]:
    return lambda: store.write_bytes(key, content)


def _deleting(store: Store, key: str) -> Callable[[], None]:
    return lambda: store.delete(key)
