"""Files of JSON lines in a store that are appended to, and rotated when they are large.

Object stores cannot append: every append rewrites the object. One that has grown beyond a limit is
stored under a numbered name and started again empty, so that a write stays small in a long run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from arlow_trainer.storage.errors import MissingObject, OversizedObject
from arlow_trainer.storage.store import Store

ROTATE_BYTES = 2**20
# Far more than the longest run writes.
MAX_LINES_BYTES = 2**29


class StoredLines:
    """Appends to a file of lines, such as `events.jsonl`, over all resumes of a run.

    Written by one process (rank 0, which holds the lease) and one thread.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name = store, name
        self._written: bytes | None = None

    def append(self, lines: bytes) -> None:
        """Appends whole lines. Raises what the store raises; nothing is then appended."""
        if self._written is None:
            # Read before the first write: what an earlier attempt wrote must not be lost.
            self._written = _terminated(_read(self._store, self._name))
        if len(self._written) > ROTATE_BYTES:
            number = max(_rotated(self._store, self._name), default=0) + 1
            stem, _, suffix = self._name.rpartition(".")
            self._store.write_bytes(f"{stem}-{number}.{suffix}", self._written)
            self._written = b""
        self._store.write_bytes(self._name, self._written + lines)
        self._written += lines

    def append_json(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Appends records, one JSON line each."""
        lines = (json.dumps(record, default=str).encode() + b"\n" for record in records)
        self.append(b"".join(lines))


def read_lines(store: Store, name: str) -> list[bytes]:
    """Returns all lines in order, rotated files first; none where there is no such file.

    Raises StoreError when the store cannot be read.
    """
    content = bytearray()
    for part in (*_rotated(store, name).values(), name):
        content += _terminated(_read(store, part))
        if len(content) > MAX_LINES_BYTES:
            raise OversizedObject(
                f"{store.url_of(part)} is damaged: with the files of lines before it, it has more "
                f"than {MAX_LINES_BYTES:,} bytes. Move them away."
            )
    lines = bytes(content).splitlines()
    # A process that died between storing a rotated file and emptying the current one left its lines
    # in both.
    return list(dict.fromkeys(lines))


def _rotated(store: Store, name: str) -> dict[int, str]:
    stem, _, suffix = name.rpartition(".")
    pattern = re.compile(rf"{re.escape(stem)}-([0-9]{{1,9}})\.{re.escape(suffix)}")
    matches = (pattern.fullmatch(found) for found in store.list_files())
    return dict(sorted((int(match.group(1)), match.group(0)) for match in matches if match))


def _read(store: Store, key: str) -> bytes:
    try:
        return store.read_bytes(key)
    except MissingObject:
        return b""


def _terminated(data: bytes) -> bytes:
    return data if not data or data.endswith(b"\n") else data + b"\n"
