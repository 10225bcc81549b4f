"""Files behind an fsspec file system, listed and read within a time limit.

For data sets, which others wrote: unlike `Store`, it takes every scheme that fsspec knows, and
raises what the client libraries raise, and CredentialsEnded. `with_retries` repeats it.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

from arlow_trainer.config import STORE_SCHEMES
from arlow_trainer.storage.connection import current, reconnect
from arlow_trainer.storage.failures import Failure, classify
from arlow_trainer.storage.retries import renewing, with_retries
from arlow_trainer.storage.timeouts import BoundedFileSystem, Deadline

T = TypeVar("T")

# A listing of millions takes minutes, and its progress cannot be seen from here.
LIST_TIMEOUT_S = 1800.0
READ_TIMEOUT_S = 300.0
"""For each part of a file: a large one takes as long as it takes while its parts arrive."""
READ_PART = 32 * 2**20
_PARTS_KEPT = 2
# What the file systems call the time of a file's last change: local, S3, Azure, GCS.
_CHANGED = ("mtime", "LastModified", "last_modified", "updated")


class CredentialsEnded(PermissionError):
    """Credentials with which files were read are refused now, also when they are read again."""


def read_file(fs: Any, path: str) -> bytes:
    """Returns a file's content. Raises StoreTimeout, and what the client library raises."""
    content = open_file(fs, path)
    return content if isinstance(content, bytes) else content.readall()


def open_file(fs: Any, path: str) -> bytes | RemoteFile:
    """Returns a file's content, or a reader of one that is larger than READ_PART.

    Raises StoreTimeout, and what the client library raises.
    """
    content = _reconnecting(fs, lambda fs: _read_start(fs, path))
    if len(content) < READ_PART:
        return content
    size = file_info(fs, path)[0]
    # A server that ignores ranges has sent all of it.
    return content if size is None or size <= len(content) else RemoteFile(fs, path, size, content)


class RemoteFile(io.RawIOBase):
    """A file in a store, read in parts as they are asked for; it keeps the first and the last two.

    A part is repeated for minutes while the store hiccups. Reading raises what the client library
    raises, and StoreTimeout.
    """

    def __init__(self, fs: Any, path: str, size: int, start: bytes) -> None:
        """Takes the file's size and its first READ_PART bytes."""
        super().__init__()
        self._fs, self.path, self.size = fs, path, size
        self._start = start
        self._parts: OrderedDict[int, bytes] = OrderedDict()
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to a position, from the start, from here or from the end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer as far as the part at this position reaches."""
        number, within = divmod(self._position, len(self._start))
        if self._position >= self.size:
            return 0
        data = self._part(number)[within : within + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def readall(self) -> bytes:
        """Returns all from this position on."""
        parts = []
        while self._position < self.size:
            number, within = divmod(self._position, len(self._start))
            parts.append(self._part(number)[within:])
            self._position += len(parts[-1])
        return b"".join(parts)

    def _part(self, number: int) -> bytes:
        if number == 0:
            return self._start
        if number not in self._parts:
            start = number * len(self._start)
            end = min(start + len(self._start), self.size)
            part = with_retries(self.path, lambda: _read_range(self._fs, self.path, start, end))
            self._parts[number] = part
            if len(self._parts) > _PARTS_KEPT:
                self._parts.popitem(last=False)
        return self._parts[number]


def _read_range(fs: Any, path: str, start: int, end: int) -> bytes:
    def read(fs: Any) -> bytes:
        bounded = BoundedFileSystem(fs, Deadline(READ_TIMEOUT_S))
        return bytes(bounded.cat_file(path, start=start, end=end))

    return _reconnecting(fs, read)


def _read_start(fs: Any, path: str) -> bytes:
    def bounded() -> Any:
        return BoundedFileSystem(fs, Deadline(READ_TIMEOUT_S))

    try:
        return bytes(bounded().cat_file(path, start=0, end=READ_PART))
    except OSError as error:
        # There is no range in an empty file: HTTP 416, of which s3fs keeps the text alone.
        if getattr(error, "status", None) != 416 and "range is not satisfiable" not in str(error):
            raise
        return bytes(bounded().cat_file(path))


def file_info(fs: Any, path: str) -> tuple[int | None, str | None]:
    """Returns a file's size, and when it was changed, as far as the file system says.

    Raises StoreTimeout, and what the client library raises.
    """
    info = _reconnecting(fs, lambda fs: BoundedFileSystem(fs, Deadline(READ_TIMEOUT_S)).info(path))
    times = (info[name] for name in _CHANGED if info.get(name) is not None)
    return info.get("size"), next((str(time) for time in times), None)


def list_files(fs: Any, root: str) -> list[str]:
    """Returns the paths of all files below a folder, relative to it, sorted.

    Raises FileNotFoundError where there is no such folder, NotADirectoryError for a file,
    StoreTimeout, and what the client library raises.
    """
    return _reconnecting(fs, lambda fs: _list(fs, root))


def _list(fs: Any, root: str) -> list[str]:
    bounded = BoundedFileSystem(fs, Deadline(LIST_TIMEOUT_S))
    found: list[str] = bounded.find(root)
    if found == [root]:
        raise NotADirectoryError(root)
    if not found and not bounded.isdir(root):
        raise FileNotFoundError(root)
    return sorted(_below(path, root.rstrip("/")) for path in found)


def _below(path: str, root: str) -> str:
    if path.startswith(f"{root}/"):
        return path[len(root) + 1 :]
    # Some servers drop the empty parts of a name: their listing of a//b names a/b/file.
    parts = len([part for part in root.split("/") if part])
    return "/".join([part for part in path.split("/") if part][parts:])


def _reconnecting(fs: Any, work: Callable[[Any], T]) -> T:
    """Returns `work(fs)`; where credentials are refused, again with those that hold now.

    Raises CredentialsEnded where they are refused still, and were not before.
    """
    if not _has_credentials(fs):
        return work(fs)
    repeated = renewing(lambda: reconnect(fs))
    try:
        result = repeated(lambda: work(current(fs)))
    except Exception as error:
        if vars(fs).get("worked") and classify(error, local=False) is Failure.CREDENTIALS:
            raise CredentialsEnded("credentials that were valid are refused now") from error
        raise
    fs.worked = True
    return result


def _has_credentials(fs: Any) -> bool:
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    return bool(fs.async_impl) and any(each in STORE_SCHEMES for each in protocols)
