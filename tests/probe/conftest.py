"""A run's checkpoint and a labelled set, both tiny."""

from __future__ import annotations

from pathlib import Path

import pytest
from class_folders import write_folders

from arlow_trainer.checkpoint.store import Store
from pictures.stored_run import save_checkpoint, tiny_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class folders of 12 training and 8 test pictures."""
    return write_folders(tmp_path / "set")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """The URL of `tiny_run`, with a checkpoint of step 10."""
    run = tiny_run(str(tmp_path / "runs"))
    store = Store(run.run_url)
    save_checkpoint(store, run, 10)
    return store
