"""Files on this machine: written atomically and durably, and read only where they are files."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

from fsspec.implementations.local import LocalFileSystem

T = TypeVar("T")

# How long a folder is made again that another rank keeps removing, and the pause between.
_REMOVED_SECONDS, _PAUSE_SECONDS = 10.0, 0.001


class NotRegularFile(OSError):
    """What should be a file is neither that nor a folder."""


class RegularFiles(LocalFileSystem):  # type: ignore[misc]
    """fsspec's local files, of which only regular ones are read, as `open_regular` does."""

    def _open(self, path: Any, mode: str = "rb", *args: Any, **options: Any) -> Any:
        if "r" in mode:
            open_regular(Path(self._strip_protocol(path))).close()
        return super()._open(path, mode, *args, **options)


def open_regular(path: Path) -> io.FileIO:
    """Opens a file for reading, unbuffered. Raises OSError, also where it is no regular file.

    Others than this run may have put it there: a FIFO would never open, a device never end.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(kind):
            raise NotRegularFile(
                errno.EINVAL, "it is no regular file, and nothing else is read", str(path)
            )
        return io.FileIO(descriptor)
    except BaseException:
        os.close(descriptor)
        raise


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
    _write(path, write, os.replace)


def create_exclusively(path: Path, data: bytes) -> None:
    """As `write_atomically`, but raises FileExistsError where there is a file of that name.

    A link instead of a rename: it never replaces a file.
    """
    _write(path, lambda file: file.write(data), os.link)


def _write(
    path: Path, write: Callable[[IO[bytes]], object], publish: Callable[[Path, Path], None]
) -> None:
    temporary = temporary_beside(path)
    try:
        with _in_folder_of(path, lambda: temporary.open("wb")) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        publish(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def extend_local(path: Path, data: bytes, known: int) -> None:
    """Appends to a file that has the first `known` bytes of `data`, or writes all of it anew.

    A reader, or a machine that lost power, may see a part of what is new.
    """
    with _in_folder_of(path, lambda: path.open("ab")) as file:
        # Others may have removed or cut it; an earlier try that failed may have written a part.
        known = known if file.tell() >= known else 0
        file.truncate(known)
        file.write(data[known:])
        file.flush()
        os.fsync(file.fileno())


def put_local(source: Path, target: Path, *, move: bool) -> None:
    """Copies a file atomically; with `move` it is renamed instead, within one file system."""
    if move and source.stat().st_dev == _in_folder_of(target, target.parent.stat).st_dev:
        with source.open("rb") as file:
            os.fsync(file.fileno())
        # Its writer may have kept it from all but its owner, as safetensors does.
        source.chmod(_in_folder_of(target, lambda: _mode_of_new_file(target)))
        _in_folder_of(target, lambda: os.replace(source, target))
        _sync_folder(target.parent)
        return
    with source.open("rb") as opened:
        write_atomically(target, lambda file: shutil.copyfileobj(opened, file, 2**20))


def _mode_of_new_file(beside: Path) -> int:
    """Returns the permissions that the process and the folder give to a new file."""
    temporary = temporary_beside(beside)
    try:
        temporary.touch()
        return stat.S_IMODE(temporary.stat().st_mode)
    finally:
        temporary.unlink(missing_ok=True)


def remove_empty_folders(path: Path) -> None:
    """Removes the folder and those below it that hold no file; leaves all others as they are."""
    for folder, _, _ in os.walk(path, topdown=False):
        with suppress(OSError):  # It holds something, by now perhaps.
            os.rmdir(folder)


def _in_folder_of(path: Path, act: Callable[[], T]) -> T:
    """Makes the folder of a file and acts in it, again where it is removed in between.

    Another rank removes it, while it is empty, when a checkpoint is not saved.
    """
    until = time.monotonic() + _REMOVED_SECONDS
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return act()
        except (FileNotFoundError, FileExistsError):
            # The latter by `mkdir`, of a folder that is removed before it looks what has the name.
            if time.monotonic() > until or _in_the_way(path.parent):
                raise
        time.sleep(_PAUSE_SECONDS)


def _in_the_way(folder: Path) -> bool:
    """Whether something that is no folder has the name of one of the path's folders."""
    return any(
        each.is_symlink() or each.exists()
        for each in (folder, *folder.parents)
        if not each.is_dir()
    )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
