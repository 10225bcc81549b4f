"""Files behind an fsspec file system, listed and read within a time limit.

For data sets, which others wrote: unlike `Store`, it takes every scheme that fsspec knows, and
raises what the client libraries raise, and CredentialsEnded. `with_retries` repeats it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from arlow_trainer.config import STORE_SCHEMES
from arlow_trainer.storage.connection import current, reconnect
from arlow_trainer.storage.failures import Failure, classify
from arlow_trainer.storage.retries import renewing
from arlow_trainer.storage.timeouts import BoundedFileSystem, Deadline

T = TypeVar("T")

# A listing of millions takes minutes, and its progress cannot be seen from here.
LIST_TIMEOUT_S = 1800.0
READ_TIMEOUT_S = 300.0
"""For each part of a file: a large one takes as long as it takes while its parts arrive."""
READ_PART = 32 * 2**20
# What the file systems call the time of a file's last change: local, S3, Azure, GCS.
_CHANGED = ("mtime", "LastModified", "last_modified", "updated")


class CredentialsEnded(PermissionError):
    """Credentials with which files were read are refused now, also when they are read again."""


def read_file(fs: Any, path: str) -> bytes:
    """Returns a file's content. Raises StoreTimeout, and what the client library raises."""
    return _reconnecting(fs, lambda fs: _read_in_parts(fs, path))


def _read_in_parts(fs: Any, path: str) -> bytes:
    def bounded() -> Any:
        return BoundedFileSystem(fs, Deadline(READ_TIMEOUT_S))

    try:
        content = bytes(bounded().cat_file(path, start=0, end=READ_PART))
    except OSError as error:
        # There is no range in an empty file: HTTP 416, of which s3fs keeps the text alone.
        if getattr(error, "status", None) != 416 and "range is not satisfiable" not in str(error):
            raise
        return bytes(bounded().cat_file(path))
    if len(content) != READ_PART:  # all of it, also from a server that ignores ranges
        return content
    parts, size = [content], int(bounded().info(path)["size"])
    for start in range(READ_PART, size, READ_PART):
        parts.append(bytes(bounded().cat_file(path, start=start, end=min(start + READ_PART, size))))
    return b"".join(parts)


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
