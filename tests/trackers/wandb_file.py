"""What W&B has written to its file of an offline run.

A log of LevelDB's format after a header of seven bytes: blocks of 32 KiB with records in fragments,
each after its checksum (4 bytes), length (2) and type (1: whole, 2: first, 3: middle, 4: last).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEADER, BLOCK, FRAGMENT_HEADER = 7, 2**15, 7
WHOLE, FIRST, LAST = 1, 2, 4


@dataclass
class OfflineRun:
    """A run's id, settings, history by W&B's step, and exit code where it has ended."""

    id: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    exit_code: int | None = None


def read_offline_runs(folder: Path) -> list[OfflineRun]:
    """Returns the offline runs under a folder, in the order of their beginnings."""
    return [_read(path) for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))]


def _read(path: Path) -> OfflineRun:
    from wandb.proto.wandb_internal_pb2 import Record

    run = OfflineRun()
    for content in _records(path.read_bytes()):
        record = Record.FromString(content)
        match record.WhichOneof("record_type"):
            case "run":
                run.id = record.run.run_id
                _update(run.config, record.run.config.update)
            case "config":
                _update(run.config, record.config.update)
            case "history":
                values: dict[str, Any] = {}
                _update(values, record.history.item)
                run.history.setdefault(values.pop("_step"), {}).update(values)
            case "exit":
                run.exit_code = record.exit.exit_code
    return run


def _update(values: dict[str, Any], items: Any) -> None:
    for item in items:
        *folders, name = item.nested_key or [item.key]
        into = values
        for folder in folders:
            into = into.setdefault(folder, {})
        into[name] = json.loads(item.value_json)


def _records(data: bytes) -> Iterator[bytes]:
    # The header counts to the first block.
    at, record = HEADER, b""
    while at + FRAGMENT_HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < FRAGMENT_HEADER:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        fragment = data[at + FRAGMENT_HEADER : at + FRAGMENT_HEADER + length]
        at += FRAGMENT_HEADER + length
        if kind == 0 and length == 0:
            at += BLOCK - at % BLOCK
            continue
        record = fragment if kind in (WHOLE, FIRST) else record + fragment
        if kind in (WHOLE, LAST):
            yield record
