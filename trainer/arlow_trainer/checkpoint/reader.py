"""Finds, verifies and downloads the checkpoints that a run URL holds."""

from __future__ import annotations

import errno
import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from arlow_trainer.checkpoint.layout import (
    MANIFEST,
    FileRecord,
    Manifest,
    SaveMark,
    checkpoint_name,
    checkpoint_step,
    manifest_key,
    save_mark_key,
)
from arlow_trainer.config.errors import StoreError
from arlow_trainer.storage.errors import MissingObject, OversizedObject, UnreadableObject
from arlow_trainer.storage.store import Store

READERS = 8
MAX_NAMED = 3

log = logging.getLogger(__name__)


class Damaged(StoreError):
    """A manifest or a file of a checkpoint is not what was written."""


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint's folder as a listing shows it.

    `valid`: the manifest is intact and every file is there with its size; `reason` says what is
    wrong otherwise. `bytes` is the size of all files, `created` a UTC time; both are None where no
    intact manifest states them. `unfinished`: there is no manifest, it was never committed;
    `marked`: its mark proves that it is a save or a deletion of this program that was cut.
    """

    step: int
    url: str
    valid: bool
    reason: str
    bytes: int | None
    created: datetime | None
    unfinished: bool = False
    marked: bool = False


@dataclass(frozen=True)
class Problem:
    """A damaged file: its path inside the checkpoint and what is wrong with it."""

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


def steps_in(store: Store) -> list[int]:
    """Steps of all checkpoint folders, finished or not, in ascending order."""
    steps = (checkpoint_step(name) for name in store.list_dirs())
    return sorted(step for step in steps if step is not None)


def read_manifest(store: Store, step: int) -> Manifest:
    """A checkpoint's manifest. Raises `MissingObject` or `Damaged` (both StoreError)."""
    where = store.url_of(manifest_key(step))
    try:
        data = store.read_bytes(manifest_key(step))
    except MissingObject:
        raise MissingObject(
            f"{store.url_of(checkpoint_name(step))} is no checkpoint: it has no {MANIFEST} "
            "(its writing was never finished, or the step is wrong). "
            "`arlow checkpoints ls` lists what there is."
        ) from None
    except StoreError as error:
        if not isinstance(error, OversizedObject) and not _device_failed(store, error):
            raise
        raise Damaged(str(error)) from error
    try:
        manifest = Manifest.from_bytes(data)
        if manifest.step != step:
            raise ValueError(f"it is the manifest of step {manifest.step}")
    except ValueError as error:
        raise Damaged(f"{where} is damaged: {error}. Use another checkpoint.") from None
    return manifest


def list_checkpoints(store: Store) -> list[CheckpointInfo]:
    """Every checkpoint folder in ascending order of steps, checked without reading the files."""
    steps = steps_in(store)
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda step: inspect(store, step), steps)
        return [info for info in found if info is not None]


def inspect(store: Store, step: int) -> CheckpointInfo | None:
    """One checkpoint's state, from its manifest and a listing; None where its folder is empty."""
    folder = checkpoint_name(step)
    stored = store.list(folder)
    if not stored:
        return None
    manifest: Manifest | None = None
    reason = "unfinished: it has no manifest"
    unfinished = manifest_key(step) not in stored
    if not unfinished:
        try:
            manifest = read_manifest(store, step)
            reason = next((str(each) for each in _size_problems(folder, manifest, stored)), "")
        except (Damaged, MissingObject) as error:
            reason = str(error)
    marked = False
    if unfinished and save_mark_key(step) in stored:
        try:
            marked = has_save_mark(store, step)
        except UnreadableObject as error:
            reason += f", and {error}"
    return CheckpointInfo(
        step=step,
        url=store.url_of(folder),
        valid=manifest is not None and not reason,
        reason=reason,
        bytes=manifest.total_bytes if manifest else None,
        created=manifest.created if manifest else None,
        unfinished=unfinished,
        marked=marked,
    )


def has_save_mark(store: Store, step: int) -> bool:
    """Whether a checkpoint's folder holds the mark of an unfinished save or deletion of it.

    Raises StoreError, UnreadableObject where it is the mark itself that cannot be read.
    """
    try:
        return SaveMark.proves(store.read_bytes(save_mark_key(step)), step)
    except MissingObject:
        return False


def verify(store: Store, step: int) -> list[Problem]:
    """Reads every byte of a checkpoint; the files that are not as the manifest says.

    A damaged manifest is a problem of the file `manifest.json`; a file that a failing disk does not
    give back is one of that file. Raises StoreError when there is no such checkpoint or the store
    cannot be read.
    """
    try:
        manifest = read_manifest(store, step)
    except Damaged as error:
        return [Problem(MANIFEST, str(error))]
    folder = checkpoint_name(step)
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(
            lambda item: _content_problem(store, folder, item[0], item[1]),
            sorted(manifest.files.items()),
        )
        return [problem for problem in found if problem is not None]


def newest_valid(
    store: Store,
    deep: bool = True,
    on_skip: Callable[[CheckpointInfo, str], None] | None = None,
    contents: Callable[[Store, int], list[Problem]] | None = None,
    check: Callable[[Store, int], list[Problem]] | None = None,
) -> CheckpointInfo | None:
    """The newest checkpoint that is intact, or None where there is none.

    With `deep` its files are read and hashed, by `check` or `verify`, otherwise only their sizes
    are compared; `contents` says what is wrong in files that are as they were written. `on_skip` is
    called with every newer one that is passed over and the reason; without it they are logged.

    Raises StoreError when the store cannot be read, and when checkpoints were committed but none is
    intact: a run that started again from step 0 would overwrite what may still be rescued.
    """
    damaged: list[str] = []
    for step in reversed(steps_in(store)):
        info = inspect(store, step)
        if info is None:
            continue
        reason = info.reason
        if info.valid and deep:
            reason = "; ".join(str(problem) for problem in (check or verify)(store, step))
        if info.valid and not reason and contents is not None:
            reason = "; ".join(str(problem) for problem in contents(store, step))
        if not reason:
            return info
        if on_skip is not None:
            on_skip(info, reason)
        else:
            log.warning("passing over %s: %s", info.url, reason)
        if not info.unfinished:
            damaged.append(f"{checkpoint_name(step)}: {reason}")
    if damaged:
        raise Damaged(
            f"{store.url}: none of its checkpoints is intact, and nothing is written over them. "
            f"{name_some(damaged)}. Repair one, or remove their folders, or start another run by "
            "metadata.name."
        )
    return None


def download(store: Store, step: int, keys: Iterable[str], directory: Path) -> list[Path]:
    """Copies files of a checkpoint under `directory`, each under its own path; returns the paths.

    `keys` are paths inside the checkpoint. Every file is hashed; raises StoreError naming the first
    that is missing or damaged, which is then not left behind.
    """
    manifest = read_manifest(store, step)
    paths = []
    for key in keys:
        record = manifest.files.get(key)
        url = f"{store.url_of(checkpoint_name(step))}/{key}"
        if record is None:
            raise StoreError(f"{url} is not a file of this checkpoint: its manifest lacks it.")
        path = directory / key
        store.get_file(f"{checkpoint_name(step)}/{key}", path)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            what = _difference(record, file.tell(), sha256)
        if what:
            path.unlink()
            raise Damaged(
                f"{url} is damaged: {what}. Use an earlier checkpoint (`arlow checkpoints ls`)."
            )
        paths.append(path)
    return paths


def _size_problems(folder: str, manifest: Manifest, stored: dict[str, int]) -> Iterable[Problem]:
    for name, record in sorted(manifest.files.items()):
        size = stored.get(f"{folder}/{name}")
        if size is None:
            yield Problem(name, "is missing")
        elif size != record.size:
            yield Problem(name, f"has {size} bytes instead of {record.size}")


def _content_problem(store: Store, folder: str, name: str, record: FileRecord) -> Problem | None:
    try:
        what = _difference(record, *store.digest(f"{folder}/{name}"))
    except MissingObject:
        what = "is missing"
    except StoreError as error:
        if not _device_failed(store, error):
            raise
        what = str(error)
    return Problem(name, what) if what else None


def _device_failed(store: Store, error: StoreError) -> bool:
    """Whether a disk of this machine does not give back what is on it.

    A network folder that cannot be reached, or a missing permission, does not mean that the files
    are damaged.
    """
    # Only of a local folder: s3fs uses this number for every error that it does not know, too.
    cause = error.__cause__ if store.local_path is not None else None
    return isinstance(cause, OSError) and cause.errno == errno.EIO


def name_some(texts: Sequence[str]) -> str:
    """Joins the first few texts, and says how many more there are."""
    more = len(texts) - MAX_NAMED
    return "; ".join(texts[:MAX_NAMED]) + (f"; and {more} more" if more > 0 else "")


def _difference(record: FileRecord, size: int, sha256: str) -> str:
    if size != record.size:
        return f"has {size} bytes instead of {record.size}"
    if sha256 != record.sha256:
        return "its content has changed: the SHA-256 differs from the manifest's"
    return ""
