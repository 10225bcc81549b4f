"""Files on this machine, written atomically and durably."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO


def is_temporary(name: str) -> bool:
    """Whether a name is one of `temporary_beside`: its file is not, or was never, complete."""
    base = PurePosixPath(name).name
    return base.startswith(".") and base.endswith(".tmp")


def temporary_beside(path: Path) -> Path:
    """Returns a new hidden name in the folder of `path`, on the same file system."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file through `write`, which is given it open.

    Temporary name, flush to the device, rename, flush the folder: a reader, or a machine that lost
    power, sees the old content or the new, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def create_exclusively(path: Path, data: bytes) -> None:
    """As `write_atomically`, but raises FileExistsError where there is a file of that name.

    A link instead of a rename: it never replaces a file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def put_local(source: Path, target: Path, *, move: bool) -> None:
    """Copies a file atomically; with `move` it is renamed instead, within one file system."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if move and source.stat().st_dev == target.parent.stat().st_dev:
        with source.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(source, target)
        _sync_folder(target.parent)
        return
    with source.open("rb") as opened:
        write_atomically(target, lambda file: shutil.copyfileobj(opened, file, 2**20))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
