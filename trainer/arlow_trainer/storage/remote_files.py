"""Files behind an fsspec file system, listed and read within a time limit.

For data sets, which others wrote: unlike `Store`, it takes every scheme that fsspec knows, and
raises what the client libraries raise. `with_retries` repeats it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from arlow_trainer.config import STORE_SCHEMES
from arlow_trainer.storage.connection import reconnect
from arlow_trainer.storage.failures import classify
from arlow_trainer.storage.timeouts import BoundedFileSystem, Deadline

T = TypeVar("T")

# A large file and a listing of millions take minutes, and their progress cannot be seen from here.
# Where a client limits a single request, it ends earlier.
READ_TIMEOUT_S = 300.0
LIST_TIMEOUT_S = 1800.0


def read_file(fs: Any, path: str) -> bytes:
    """Returns a file's content. Raises StoreTimeout, and what the client library raises."""
    return _reconnecting(
        fs, lambda fs: bytes(BoundedFileSystem(fs, Deadline(READ_TIMEOUT_S)).cat_file(path))
    )


def list_files(fs: Any, root: str) -> list[str]:
    """Returns the full paths of all files below a folder, sorted.

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
    return found


def _reconnecting(fs: Any, work: Callable[[Any], T]) -> T:
    """Returns `work(fs)`; where credentials are refused, once more with those that hold now."""
    try:
        return work(fs)
    except Exception as error:
        if not _has_credentials(fs) or not classify(error, local=False).of_credentials:
            raise
    return work(reconnect(fs))


def _has_credentials(fs: Any) -> bool:
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    return bool(fs.async_impl) and any(each in STORE_SCHEMES for each in protocols)
