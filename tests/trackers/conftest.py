"""A tracked run in a local folder, with a picture."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from tracked_records import PICTURE, SETTINGS

from arlow_trainer.storage.errors import MissingObject
from arlow_trainer.storage.store import Store
from arlow_trainer.trackers import TrackedRun


@pytest.fixture
def folder(tmp_path: Path) -> Store:
    """The run's URL, with one picture."""
    store = Store(str(tmp_path / "run"))
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(buffer, "PNG")
    store.write_bytes(PICTURE, buffer.getvalue())
    return store


@pytest.fixture
def tracked(folder: Store) -> Callable[..., TrackedRun]:
    """The run as its trackers are given it, at an attempt and a step."""

    def read(key: str) -> bytes | None:
        try:
            return folder.read_bytes(key)
        except MissingObject:
            return None

    def run(attempt: int = 1, step: int = 0, **changes: object) -> TrackedRun:
        values = {"id": "4f2a", "name": "small", "url": folder.url, "settings": SETTINGS}
        return TrackedRun(**values | {"attempt": attempt, "step": step, "read": read} | changes)

    return run
