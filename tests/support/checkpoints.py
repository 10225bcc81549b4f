"""Saves of small checkpoints for the tests of the store."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path

from arlow_trainer.checkpoint.writer import BackgroundWriter, FileWriter, SaveEvent
from arlow_trainer.storage.store import Store


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


def save(
    store: Store, *steps: int, files: Mapping[str, FileWriter | bytes] | None = None
) -> list[SaveEvent]:
    """Saves `steps` as a process group of one; returns the events."""
    events: list[SaveEvent] = []
    with BackgroundWriter(store, 0, 1, new_attempt(), events.append) as writer:
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
