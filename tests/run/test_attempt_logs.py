"""Logs in a run's URL: how attempts are numbered, what is stored, and what is found."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from arlow_trainer.config.errors import ConfigError, Interrupted, StoreError
from arlow_trainer.run.attempt_logs import LogUploader, attempts, read_logs, reserve_attempt
from arlow_trainer.storage.store import Store
from support.waiting import wait_until


def test_attempts_are_counted_from_one(store: Store) -> None:
    assert reserve_attempt(store, {}) == 1
    for name in ("1", "2", "10", "old", "007"):
        store.write_bytes(f"logs/{name}/rank-0.log", b"x\n")
    assert attempts(store) == [1, 2, 10]
    assert reserve_attempt(store, {}) == 11


def test_a_number_is_given_once_though_no_log_is_stored(store: Store) -> None:
    """An attempt that was killed within two minutes has stored none."""
    assert [reserve_attempt(store, {}) for _ in range(3)] == [1, 2, 3]


def test_attempts_that_begin_at_once_have_different_numbers(tmp_path: Path) -> None:
    """The holder of a lease that is taken over may have been about to reserve its number."""
    stores = [Store(str(tmp_path)) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda each: reserve_attempt(each, {}), stores))
    assert sorted(numbers) == list(range(1, 9))


def test_the_operator_gives_the_number(store: Store) -> None:
    assert reserve_attempt(store, {"ARLOW_ATTEMPT": "7"}) == 7
    # The run was deleted in the cluster and made anew, with the same URL.
    assert reserve_attempt(store, {"ARLOW_ATTEMPT": "1"}) == 8
    assert reserve_attempt(store, {"ARLOW_ATTEMPT": ""}) == 9


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.0", "\u0661", "1" * 10])
def test_what_is_no_number_of_an_attempt_is_refused(store: Store, text: str) -> None:
    with pytest.raises(ConfigError, match=r"ARLOW_ATTEMPT: .* is not allowed"):
        reserve_attempt(store, {"ARLOW_ATTEMPT": text})
    assert attempts(store) == []


def test_a_number_above_the_last_is_refused_in_words(store: Store) -> None:
    store.write_bytes("logs/999999998/rank-0.log", b"x\n")
    assert reserve_attempt(store, {}) == 999_999_999
    for environ in ({}, {"ARLOW_ATTEMPT": "999999999"}):
        with pytest.raises(StoreError, match=r"logs/999999999: no attempt .* Move the folder away"):
            reserve_attempt(store, environ)


def test_a_number_that_no_listing_shows_is_passed_over(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "attempt.json").touch()
    (tmp_path / "run" / "logs").mkdir(parents=True)
    for name in ("1", "2"):
        (tmp_path / "run" / "logs" / name).symlink_to(elsewhere)
    assert reserve_attempt(Store(str(tmp_path / "run")), {}) == 3


def test_reserving_ends_where_every_number_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "write_if_unchanged", lambda *_, **__: None)
    with pytest.raises(StoreError, match="no other program writes there"):
        reserve_attempt(Store(str(tmp_path)), {})


def test_reserving_obeys_a_stop(store: Store) -> None:
    def stop() -> None:
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        reserve_attempt(store, {}, stop)
    assert attempts(store) == []


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


def test_an_attempt_that_has_stored_no_log_yet(store: Store) -> None:
    store.write_bytes("logs/1/rank-0.log", b"first")
    reserve_attempt(store, {})
    assert read_logs(store) == (1, {"rank-0.log": "first"})
    with pytest.raises(StoreError, match=r"no logs of attempt 2: they are stored every 120 s"):
        read_logs(store, attempt=2)


def test_a_run_without_logs_is_an_error(store: Store) -> None:
    with pytest.raises(StoreError, match="holds no logs"):
        read_logs(store)


def test_what_is_new_is_stored_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    store, folder, number = Store(str(tmp_path / "run")), tmp_path / "logs", []
    folder.mkdir()
    warnings: list[str] = []
    uploader = LogUploader(
        store, folder, lambda: number[0] if number else None, warnings.append, 0.05
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
    LogUploader(Store(str(tmp_path / "run")), folder, lambda: None, print, 0.05).close()
    assert not (tmp_path / "run").exists()
