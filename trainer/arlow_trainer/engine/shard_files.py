"""Reads parts of a safetensors file straight into tensors, many at a time."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

READERS = 8
CHUNK_BYTES = 32 * 2**20
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Span:
    """Elements `start` to `start + len(into)` of a flat tensor of the file, and where they go."""

    key: str
    start: int
    into: Tensor


class ShardFile:
    """A safetensors file of flat float32 tensors.

    Attributes:
        metadata: the file's own.
    """

    def __init__(self, path: Path) -> None:
        """Reads the header. Raises ValueError where it is none."""
        self._path = path
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            if length > _MAX_HEADER_BYTES:
                raise ValueError(f"its header would have {length:,} bytes")
            header: dict[str, Any] = json.loads(file.read(length))
        self.metadata: dict[str, str] = header.pop("__metadata__", {})
        self._tensors, self._data = header, _LENGTH_BYTES + length

    def read(self, spans: Iterable[Span]) -> None:
        """Reads spans in parallel; each `into` is flat, contiguous and float32, on any device.

        Raises ValueError where the file has no such elements, OSError where it cannot be read.
        """
        local = threading.local()
        with ThreadPoolExecutor(READERS) as pool, self._path.open("rb") as file:
            work = [
                pool.submit(_read, file.fileno(), offset, into, local)
                for span in spans
                for offset, into in self._chunks(span)
            ]
            for each in work:
                each.result()

    def _chunks(self, span: Span) -> Iterator[tuple[int, Tensor]]:
        entry = self._tensors.get(span.key)
        if entry is None or entry["dtype"] != "F32":
            raise ValueError(f"it has no float32 tensor {span.key}")
        begin, end = entry["data_offsets"]
        size = span.into.element_size()
        if not 0 <= span.start <= span.start + len(span.into) <= (end - begin) // size:
            raise ValueError(f"{span.key} has fewer elements than its fragments say")
        step = CHUNK_BYTES // size
        for first in range(0, len(span.into), step):
            offset = self._data + begin + (span.start + first) * size
            yield offset, span.into[first : first + step]


def _read(file: int, offset: int, into: Tensor, local: threading.local) -> None:
    if into.device.type == "cpu":
        _fill(file, offset, into)
        return
    stage = getattr(local, "stage", None)
    if stage is None:
        stage = local.stage = torch.empty(CHUNK_BYTES // into.element_size(), pin_memory=True)
    part = stage[: len(into)]
    _fill(file, offset, part)
    into.copy_(part)


def _fill(file: int, offset: int, into: Tensor) -> None:
    values: Any = into.numpy()
    left = memoryview(values).cast("B")
    while left:
        count = os.preadv(file, [left], offset)
        if not count:
            raise ValueError("it ends too early")
        left, offset = left[count:], offset + count
