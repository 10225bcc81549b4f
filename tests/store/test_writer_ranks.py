"""Ranks of one save: a failure on one ends it on all, and an end waits for nobody."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from arlow_trainer.checkpoint.reader import list_checkpoints
from arlow_trainer.checkpoint.store import Store
from arlow_trainer.checkpoint.writer import BackgroundWriter
from arlow_trainer.config.errors import ArlowError, StoreError
from support.checkpoints import files_of, new_attempt


class Notes:
    """A board in one process."""

    def __init__(self) -> None:
        self.keys: set[str] = set()

    def tell(self, key: str) -> None:
        self.keys.add(key)

    def told(self, key: str) -> bool:
        return key in self.keys


def test_a_failure_on_one_rank_ends_the_save_on_all(tmp_path: Path) -> None:
    store, attempt, board = Store(str(tmp_path / "run")), new_attempt(), Notes()
    writers = [
        BackgroundWriter(store, rank, 2, attempt, lambda _: None, board=board) for rank in (0, 1)
    ]

    def broken(path: Path) -> None:
        raise OSError("the disk under the staging folder is gone")

    began = time.monotonic()
    writers[0].submit(5, files_of(5))
    writers[1].submit(5, {"optimizer/rank-1": broken})
    with pytest.raises(ArlowError):
        writers[1].wait()
    with pytest.raises(StoreError, match="another rank's save failed"):
        writers[0].wait()
    assert time.monotonic() - began < 20
    assert not any(info.valid for info in list_checkpoints(store))

    # The next save of both is not held up by the last one's failure.
    writers[0].submit(6, files_of(6))
    writers[1].submit(6, {"optimizer/rank-1": b"1"})
    for writer in writers:
        writer.wait()
        writer.close()
    assert [info.step for info in list_checkpoints(store) if info.valid] == [6]


def test_an_end_by_failure_does_not_wait_for_other_ranks(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "run"))
    began = time.monotonic()
    writer = BackgroundWriter(store, 0, 2, new_attempt(), lambda _: None)
    writer.submit(5, files_of(5))
    writer.close(abandon=True)
    assert time.monotonic() - began < 20
    assert not any(info.valid for info in list_checkpoints(store))
