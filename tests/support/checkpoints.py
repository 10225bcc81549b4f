"""Saves of small checkpoints for the tests of the store."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any

from arlow_trainer.checkpoint.writer import BackgroundWriter, FileWriter, SaveEvent
from arlow_trainer.storage.store import Store


class SharedValues:
    """The ranks' key-value store, for ranks that are threads of one process."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self._lock = threading.Lock()

    def post(self, key: str, value: str) -> None:
        with self._lock:
            self.values[key] = value

    def has(self, key: str) -> bool:
        with self._lock:
            return key in self.values

    def get(self, key: str) -> str:
        with self._lock:
            return self.values[key]

    def delete(self, key: str) -> None:
        with self._lock:
            self.values.pop(key, None)


class _Server(BaseManager):
    """Serves one `SharedValues` to ranks that are processes."""


_shared = SharedValues()
_KEY = b"the ranks of a test"


def _served() -> SharedValues:
    return _shared


_Server.register("values", _served)


@contextmanager
def serve_values() -> Iterator[int]:
    """Serves a new `SharedValues` from a process of its own; yields the port."""
    with _Server(("127.0.0.1", 0), _KEY) as server:
        yield server.address[1]


def served_values(port: int) -> SharedValues:
    """The `SharedValues` that is served on a port."""
    client = _Server(("127.0.0.1", port), _KEY)
    client.connect()
    return client.values()


def new_attempt() -> str:
    return uuid.uuid4().hex


def files_of(step: int, size: int = 1000) -> dict[str, FileWriter | bytes]:
    """A small checkpoint: weights written through a path, a config given as bytes."""
    weights = bytes((step + i) % 251 for i in range(size))
    return {
        "vision_encoder/model.safetensors": lambda path: path.write_bytes(weights),
        "vision_encoder/config.json": b'{"step": %d}' % step,
        "trainer_state.json": b"{}",
    }


def only_rank(
    store: Store, on_event: Callable[[SaveEvent], object] = str, **options: Any
) -> BackgroundWriter:
    """The writer of a process group of one."""
    return BackgroundWriter(store, 0, 1, new_attempt(), on_event, channel=SharedValues(), **options)


def save(
    store: Store, *steps: int, files: Mapping[str, FileWriter | bytes] | None = None
) -> list[SaveEvent]:
    """Saves `steps` as a process group of one; returns the events."""
    events: list[SaveEvent] = []
    with only_rank(store, events.append) as writer:
        for step in steps:
            writer.submit(step, files or files_of(step))
        writer.wait()
    return events


def flip_byte(store: Store, key: str, index: int = 0) -> None:
    """Damages one byte of an object and keeps its size."""
    data = bytearray(store.read_bytes(key))
    data[index] ^= 0xFF
    store.write_bytes(key, bytes(data))


def local_file(path: Path, size: int) -> Path:
    """A file of `size` bytes that are not all alike."""
    path.write_bytes((bytes(range(251)) * (size // 251 + 1))[:size])
    return path
