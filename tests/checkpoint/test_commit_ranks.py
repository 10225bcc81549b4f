"""Ranks of one save: a failure on one ends it on all, and an end waits for nobody."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path

import pytest
from save_actions import play

from arlow_trainer.checkpoint.commit import OtherRankFailed
from arlow_trainer.checkpoint.layout import part_key
from arlow_trainer.checkpoint.reader import list_checkpoints, verify
from arlow_trainer.checkpoint.writer import BackgroundWriter
from arlow_trainer.config.errors import ArlowError, StoreError
from arlow_trainer.storage.store import Store
from support.checkpoints import files_of, new_attempt
from support.two_ranks import on_two_ranks


class Notes:
    """A board in one process."""

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}

    def tell(self, key: str, words: str) -> None:
        self.notes[key] = words

    def told(self, key: str) -> bool:
        return key in self.notes

    def words(self, key: str) -> str:
        return self.notes[key]


class Blind(Store):
    """A store whose manifests cannot be read from some moment on."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.asked, self.failing = threading.Event(), threading.Event()

    def read_bytes(self, key: str) -> bytes:
        if key.endswith("manifest.json"):
            self.asked.set()
            if self.failing.is_set():
                raise StoreError("the store is away")
        return super().read_bytes(key)


def test_a_failure_on_one_rank_ends_the_save_on_all(tmp_path: Path) -> None:
    store, attempt, board = Store(str(tmp_path / "run")), new_attempt(), Notes()
    writers = [
        BackgroundWriter(store, rank, 2, attempt, lambda _: None, board=board) for rank in (0, 1)
    ]

    def broken(path: Path) -> None:
        raise OSError("the disk under the staging folder is gone")

    # Without a word from the other rank both would wait for COMMIT_TIMEOUT_S, half an hour.
    writers[0].submit(5, files_of(5))
    writers[1].submit(5, {"optimizer/rank-1": broken})
    with pytest.raises(ArlowError):
        writers[1].wait()
    with pytest.raises(OtherRankFailed, match=r"another rank's save failed\. Rank 1: .* is gone"):
        writers[0].wait()
    assert store.list("checkpoint-5") == {}

    # The next save of both is not held up by the last one's failure.
    writers[0].submit(6, files_of(6))
    writers[1].submit(6, {"optimizer/rank-1": b"1"})
    for writer in writers:
        writer.wait()
        writer.close()
    assert [info.step for info in list_checkpoints(store) if info.valid] == [6]


def test_an_end_by_failure_does_not_wait_for_other_ranks(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "run"))
    writer = BackgroundWriter(store, 0, 2, new_attempt(), lambda _: None)
    writer.submit(5, files_of(5))
    # It would wait for rank 1 for COMMIT_TIMEOUT_S, half an hour.
    writer.close(abandon=True)
    assert not any(info.valid for info in list_checkpoints(store))


def test_files_are_deleted_where_a_commit_fails(tmp_path: Path) -> None:
    """Rank 1 has handed its files over when rank 0 fails: both delete theirs."""
    store, attempt, board = Store(str(tmp_path / "run")), new_attempt(), Notes()
    writers = [
        BackgroundWriter(store, rank, 2, attempt, lambda _: None, board=board) for rank in (0, 1)
    ]
    handed_over = threading.Event()

    def late(path: Path) -> None:
        assert handed_over.wait(60)
        raise OSError(errno.ENOSPC, "No space left on device")

    writers[0].submit(5, {"a": b"uploaded before", "b": late})
    writers[1].submit(5, {"optimizer/rank-1": b"1"})
    while not store.exists(part_key(5, 1)):
        time.sleep(0.01)
    handed_over.set()
    with pytest.raises(StoreError, match="No space left"):
        writers[0].wait()
    with pytest.raises(OtherRankFailed, match=r"Rank 0: .*No space left"):
        writers[1].wait()
    assert store.list("checkpoint-5") == {}
    for writer in writers:
        writer.close()


def test_files_that_may_be_committed_stay(tmp_path: Path) -> None:
    """Rank 1 cannot see the commit, and rank 0 commits all the same: the checkpoint is whole."""
    store, attempt, board = Blind(str(tmp_path / "run")), new_attempt(), Notes()
    writers = [
        BackgroundWriter(store, rank, 2, attempt, lambda _: None, board=board) for rank in (0, 1)
    ]
    writers[1].submit(5, {"optimizer/rank-1": b"1"})
    assert store.asked.wait(60)
    # What rank 1 leaves on the board comes when rank 0 no longer looks.
    board.told = lambda key: "verdict" in key and key in board.notes  # type: ignore[method-assign]
    store.failing.set()
    writers[0].submit(5, {"optimizer/rank-0": b"0"})
    writers[0].wait()
    with pytest.raises(StoreError, match="the store is away"):
        writers[1].wait()
    assert verify(Store(store.url), 5) == []
    for writer in writers:
        writer.close()


def test_real_ranks_tell_each_other_the_cause(tmp_path: Path) -> None:
    """The disk of either of two ranks is full: both raise it, and rank 0 tells of it."""
    found = on_two_ranks(play, str(tmp_path / "run"))
    for step, failing in ((10, 1), (20, 0)):
        cause = f"rank-{failing}: No space left on device"
        for rank in (0, 1):
            raised = found[rank][f"raised {step}"]
            assert cause in raised
            assert "Free some space" in raised
            assert "another rank" not in raised
            told = found[rank][f"told {step}"]
            assert cause in told
            assert (f"Rank {failing}: " in told) is (rank != failing)
            assert f"checkpoint-{step} is not saved" in found[rank]["log"]
    assert list_checkpoints(Store(str(tmp_path / "run"))) == []
