"""Conditional writes in every kind of store: real ones, and the HTTP protocols of the others.

Local files, memory and S3 (SeaweedFS) are real. Google, Azure and an S3 server without conditions
are in-process servers of their protocols.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from arlow_trainer.config.errors import StoreError
from arlow_trainer.storage import conditional
from arlow_trainer.storage.store import Store
from support.processes import in_fork


def test_versions_decide_who_writes(conditional_store: Store) -> None:
    store = conditional_store
    assert store.read_versioned("lease.json") is None
    first = store.write_if_unchanged("lease.json", b"first", None)
    assert first is not None
    assert store.write_if_unchanged("lease.json", b"other", None) is None
    second = store.write_if_unchanged("lease.json", b"second", first)
    assert second not in (None, first)
    assert store.write_if_unchanged("lease.json", b"third", first) is None
    found = store.read_versioned("lease.json")
    assert found is not None
    assert (found.data, found.version) == (b"second", second)


def test_a_missing_object_has_no_version(conditional_store: Store) -> None:
    store = conditional_store
    version = store.write_if_unchanged("lease.json", b"first", None)
    assert version is not None
    store.delete("lease.json")
    assert store.write_if_unchanged("lease.json", b"second", version) is None
    assert store.read_versioned("lease.json") is None
    assert not store.delete_if_unchanged("lease.json", version)


def test_deletion_respects_the_version(conditional_store: Store) -> None:
    store = conditional_store
    first = store.write_if_unchanged("lease.json", b"first", None)
    assert first is not None
    second = store.write_if_unchanged("lease.json", b"second", first)
    assert second is not None
    assert not store.delete_if_unchanged("lease.json", first)
    assert store.delete_if_unchanged("lease.json", second)
    assert not store.exists("lease.json")


def test_a_write_whose_answer_was_lost_is_recognised(conditional_store: Store) -> None:
    store = conditional_store
    first = store.write_if_unchanged("lease.json", b"first", None)
    assert store.write_if_unchanged("lease.json", b"first", None) == first
    second = store.write_if_unchanged("lease.json", b"second", first)
    assert store.write_if_unchanged("lease.json", b"second", first) == second


@pytest.mark.parametrize("exists", [False, True])
def test_of_many_writers_one_succeeds(conditional_store: Store, exists: bool) -> None:
    for round_ in range(3):
        key = f"lease-{round_}.json"
        version = conditional_store.write_if_unchanged(key, b"before", None) if exists else None
        winners = race(
            8,
            lambda number, key=key, version=version: (
                conditional_store.write_if_unchanged(  # type: ignore[misc]
                    key, b"writer %d" % number, version
                )
                is not None
            ),
        )
        assert len(winners) == 1
        assert conditional_store.read_bytes(key) == b"writer %d" % winners[0]


@pytest.mark.parametrize("exists", [False, True])
def test_of_many_processes_one_succeeds(tmp_path: Path, exists: bool) -> None:
    store = Store(str(tmp_path))
    for round_ in range(6):
        key = f"lease-{round_}.json"
        version = store.write_if_unchanged(key, b"before", None) if exists else None
        start = time.time() + 0.05
        context = multiprocessing.get_context("fork")
        processes = [
            context.Process(target=write_at, args=(store, key, version, start)) for _ in range(6)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes].count(0) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(store.list())


def write_at(store: Store, key: str, version: str | None, start: float) -> None:
    time.sleep(max(0.0, start - time.time()))
    os._exit(int(store.write_if_unchanged(key, uuid.uuid4().bytes, version) is None))


def test_a_process_that_dies_holding_the_lock_releases_it(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    in_fork(lambda: str(conditional._lock(tmp_path / ".lease.json.lock.tmp")))
    assert store.list() == {}
    assert store.write_if_unchanged("lease.json", b"1", None) is not None
    assert os.listdir(tmp_path) == ["lease.json"]


def test_a_lock_that_stays_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditional, "LOCK_TIMEOUT_S", 0.1)
    descriptor = conditional._lock(tmp_path / ".lease.json.lock.tmp")
    assert descriptor is not None
    with pytest.raises(StoreError, match=r"lease\.json: \.lease\.json\.lock\.tmp has been locked"):
        Store(str(tmp_path)).write_if_unchanged("lease.json", b"1", None)
    os.close(descriptor)


def test_whether_a_server_honours_conditions_is_found_out(
    conditional_store: Store, request: pytest.FixtureRequest
) -> None:
    conditional_store.write_if_unchanged("lease.json", b"1", None)
    plain = request.node.callspec.params["conditional_store"] == "plain-s3"
    assert conditional_store._conditional._honoured is not plain


def race(count: int, work: Callable[[int], bool]) -> list[int]:
    """Runs `work(number)` in many threads at once; returns the numbers for which it was true."""
    barrier, winners = threading.Barrier(count), []

    def run(number: int) -> None:
        barrier.wait()
        if work(number):
            winners.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return winners
