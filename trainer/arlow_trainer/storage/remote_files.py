"""Files behind an fsspec file system, listed and read within a time limit.

For data sets, which others wrote: unlike `Store`, it takes every scheme that fsspec knows, and
raises what the client libraries raise. `with_retries` repeats it.
"""

from __future__ import annotations

from typing import Any

from arlow_trainer.storage.timeouts import BoundedFileSystem, Deadline

# A listing of millions takes minutes, and its progress cannot be seen from here.
LIST_TIMEOUT_S = 1800.0
READ_TIMEOUT_S = 300.0
"""For each part of a file: a large one takes as long as it takes while its parts arrive."""
READ_PART = 32 * 2**20


def read_file(fs: Any, path: str) -> bytes:
    """Returns a file's content. Raises StoreTimeout, and what the client library raises."""

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


def list_files(fs: Any, root: str) -> list[str]:
    """Returns the full paths of all files below a folder, sorted.

    Raises FileNotFoundError where there is no such folder, NotADirectoryError for a file,
    StoreTimeout, and what the client library raises.
    """
    bounded = BoundedFileSystem(fs, Deadline(LIST_TIMEOUT_S))
    found: list[str] = bounded.find(root)
    if found == [root]:
        raise NotADirectoryError(root)
    if not found and not bounded.isdir(root):
        raise FileNotFoundError(root)
    return found
