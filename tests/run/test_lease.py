"""One live run a URL, in every kind of store and over real processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from arlow_trainer.config.errors import ExitCode, LeaseError
from arlow_trainer.run.lease import Lease, LeaseRecord
from arlow_trainer.storage.store import Store

HOLDER = """
import sys, time
from arlow_trainer.run.lease import Lease
from arlow_trainer.storage.store import Store
lease = Lease.acquire(Store(sys.argv[1]), "run-a", ttl_s=600)
print("held", flush=True)
time.sleep(600)
"""


def record(store: Store) -> LeaseRecord:
    return LeaseRecord.model_validate_json(store.read_bytes("lease.json"))


def elsewhere(store: Store, renewed: float) -> LeaseRecord:
    """Writes the lease of a run on another machine."""
    held = LeaseRecord(
        owner="run-b",
        token="0" * 32,
        host="node-7",
        machine="another",
        pid=42,
        process_started=1.0,
        acquired=1.0,
        renewed=renewed,
    )
    store.write_bytes("lease.json", held.model_dump_json().encode())
    return held


def test_a_second_run_is_refused_until_the_first_lets_go(store: Store) -> None:
    with Lease.acquire(store, "run-a", ttl_s=60):
        with pytest.raises(LeaseError) as caught:
            Lease.acquire(store, "run-b", ttl_s=60)
        assert caught.value.exit_code == ExitCode.LEASE
        for part in (store.url, "run-a", f"process {os.getpid()}", "since", "stop it", "name"):
            assert part in str(caught.value)
    assert not store.exists("lease.json")
    Lease.acquire(store, "run-b", ttl_s=60).release()


def test_a_killed_run_on_this_machine_gives_way_at_once(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, store.url], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(LeaseError, match="run-a"):
        Lease.acquire(store, "run-a", ttl_s=600)
    holder.kill()
    # Not waited for: a zombie is as dead as a process that is gone.
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    lease = Lease.acquire(store, "run-a", ttl_s=600)
    assert record(store).pid == os.getpid()
    lease.release()
    holder.communicate()


def test_a_suspended_run_on_this_machine_keeps_its_lease(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, store.url], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(LeaseError, match="run-a"):
        Lease.acquire(store, "run-b", ttl_s=0.2, clock=lambda: time.time() + 3600, wait_s=1.0)
    holder.kill()
    holder.communicate()


def test_a_run_elsewhere_gives_way_when_its_lease_ends(store: Store) -> None:
    elsewhere(store, renewed=time.time())
    with pytest.raises(LeaseError, match=r"run-b \(process 42 on node-7, since 1970-01-01"):
        Lease.acquire(store, "run-a", ttl_s=60)
    elsewhere(store, renewed=time.time() - 61)
    lease = Lease.acquire(store, "run-a", ttl_s=1.0)
    assert record(store).owner == "run-a"
    lease.release()


def test_a_run_elsewhere_whose_clock_is_slow_is_not_taken_over(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    slow = time.time() - 3600
    elsewhere(store, renewed=slow)
    renewing = threading.Timer(0.5, elsewhere, [store, slow + 1])
    renewing.start()
    with pytest.raises(LeaseError, match="run-b"):
        Lease.acquire(store, "run-a", ttl_s=5.0)
    renewing.join()


def test_a_store_that_hangs_does_not_delay_the_end(tmp_path: Path) -> None:
    hangs, ends = threading.Event(), threading.Event()

    class Hanging(Store):
        def read_bytes(self, key: str) -> bytes:
            if hangs.is_set():
                ends.wait(60)
            return super().read_bytes(key)

    lease = Lease.acquire(Hanging(str(tmp_path)), "run-a", ttl_s=600)
    hangs.set()
    lease.release(timeout_s=0.2)
    ends.set()


def test_waiting_outlasts_a_dead_holder(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    elsewhere(store, renewed=time.time())
    started = time.monotonic()
    Lease.acquire(store, "run-a", ttl_s=1.0, wait_s=60).release()
    assert 0.9 < time.monotonic() - started < 50


def test_the_lease_is_renewed(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with Lease.acquire(store, "run-a", ttl_s=0.3) as lease:
        first = record(store).renewed
        deadline = time.monotonic() + 10
        while record(store).renewed == first and time.monotonic() < deadline:
            time.sleep(0.02)
        assert record(store).renewed > first
        assert record(store).acquired == first
        assert lease.loss is None


def test_a_run_that_was_taken_over_stops(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    losses: list[LeaseError] = []
    lease = Lease.acquire(store, "run-a", ttl_s=0.3, on_lost=losses.append)
    by = elsewhere(store, renewed=time.time())
    deadline = time.monotonic() + 10
    while not losses and time.monotonic() < deadline:
        time.sleep(0.02)
    assert lease.loss is not None
    assert re.search(r"taken over by run-b .*stops", str(lease.loss))
    assert len(losses) == 1
    lease.release()
    assert record(store) == by


def test_a_run_that_was_taken_over_writes_nothing_more(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write_bytes("status.json", b"before")
    lease = Lease.acquire(store, "run-a", ttl_s=0.3, on_lost=store.forbid_writes)
    elsewhere(store, renewed=time.time())
    deadline = time.monotonic() + 10
    while lease.loss is None and time.monotonic() < deadline:
        time.sleep(0.02)
    for change in (
        lambda: store.write_bytes("status.json", b"after"),
        lambda: store.create_bytes("new", b""),
        lambda: store.delete("status.json"),
    ):
        with pytest.raises(LeaseError, match="taken over by run-b"):
            change()
    assert store.read_bytes("status.json") == b"before"
    lease.release()


def test_a_lease_that_was_removed_is_written_again(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with Lease.acquire(store, "run-a", ttl_s=0.3):
        store.delete("lease.json")
        deadline = time.monotonic() + 10
        while not store.exists("lease.json") and time.monotonic() < deadline:
            time.sleep(0.02)
        assert record(store).owner == "run-a"


def test_a_damaged_lease_counts_as_none(store: Store) -> None:
    store.write_bytes("lease.json", b'{"owner": ')
    Lease.acquire(store, "run-a", ttl_s=60).release()


def test_of_two_newcomers_one_wins(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    deadline = time.monotonic() + 60
    while sum(process.poll() is None for process in processes) > 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    alive = [process for process in processes if process.poll() is None]
    assert len(alive) == 1
    assert record(Store(str(tmp_path))).pid == alive[0].pid
    alive[0].kill()
    for process in processes:
        _, errors = process.communicate()
        assert process is alive[0] or "LeaseError" in errors
