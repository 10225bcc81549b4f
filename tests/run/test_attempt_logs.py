"""Logs in a run's URL: how attempts are numbered, what is stored, and what is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from arlow_trainer.config.errors import StoreError
from arlow_trainer.run.attempt_logs import LogUploader, attempts, next_attempt, read_logs
from arlow_trainer.storage.store import Store
from support.waiting import wait_until


def test_attempts_are_counted_from_one(store: Store) -> None:
    assert next_attempt(store) == 1
    for name in ("1", "2", "10", "old", "007"):
        store.write_bytes(f"logs/{name}/rank-0.log", b"x\n")
    assert attempts(store) == [1, 2, 10]
    assert next_attempt(store) == 11


def test_logs_are_found_by_attempt_and_rank(store: Store) -> None:
    for name in ("rank-10", "rank-2", "rank-2-worker-1", "rank-0", "other"):
        store.write_bytes(f"logs/3/{name}.log", name.encode())
    store.write_bytes("logs/1/rank-0.log", b"first")
    number, found = read_logs(store)
    assert number == 3
    assert list(found) == ["rank-0.log", "rank-2.log", "rank-2-worker-1.log", "rank-10.log"]
    assert read_logs(store, rank=2) == (
        3,
        {"rank-2.log": "rank-2", "rank-2-worker-1.log": "rank-2-worker-1"},
    )
    assert read_logs(store, attempt=1) == (1, {"rank-0.log": "first"})
    with pytest.raises(StoreError, match=r"no logs of attempt 2; it has those of \[1, 3\]"):
        read_logs(store, attempt=2)
    with pytest.raises(StoreError, match=r"no logs of rank 7; it has those of \[0, 2, 10\]"):
        read_logs(store, rank=7)


def test_a_run_without_logs_is_an_error(store: Store) -> None:
    with pytest.raises(StoreError, match="holds no logs"):
        read_logs(store)


def test_what_is_new_is_stored_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    store, folder, number = Store(str(tmp_path / "run")), tmp_path / "logs", []
    folder.mkdir()
    warnings: list[str] = []
    uploader = LogUploader(
        store.url, folder, lambda: number[0] if number else None, warnings.append, 0.05
    )
    (folder / "rank-0.log").write_text("one\n")
    (folder / "rank-0-worker-0.log").write_text("")
    number.append(4)
    wait_until(lambda: store.exists("logs/4/rank-0.log"))
    with (folder / "rank-0.log").open("a") as log:
        log.write("two\n")
    uploader.close()
    assert read_logs(store) == (4, {"rank-0.log": "one\ntwo\n"})
    assert warnings == []


def test_an_attempt_that_never_held_the_run_stores_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "rank-0.log").write_text("refused\n")
    LogUploader(str(tmp_path / "run"), folder, lambda: None, print, 0.05).close()
    assert not (tmp_path / "run").exists()
