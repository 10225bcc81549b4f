"""One live run a URL, in every kind of store and over real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from arlow_trainer.config.errors import ExitCode, Interrupted, LeaseError
from arlow_trainer.run.lease import Lease, LeaseRecord, this_machine, version_held_by
from arlow_trainer.storage import conditional
from arlow_trainer.storage.store import Store
from support.waiting import wait_until

HOLDER = """
import sys, time
from arlow_trainer.run.lease import Lease
from arlow_trainer.storage.store import Store
lease = Lease.acquire(Store(sys.argv[1]), "run-a", ttl_s=600)
print("held", flush=True)
"""
SLEEPING = "time.sleep(600)\n"


def record(store: Store) -> LeaseRecord:
    return LeaseRecord.model_validate_json(store.read_bytes("lease.json"))


def elsewhere(store: Store, renewed: float = 1.0) -> LeaseRecord:
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


ENDING = """
while lease.loss is None:
    time.sleep(0.02)
print(lease.loss, flush=True)
"""


def test_a_second_run_is_refused_until_the_first_lets_go(conditional_store: Store) -> None:
    store = conditional_store
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
        [sys.executable, "-c", HOLDER + SLEEPING, store.url], stdout=subprocess.PIPE, text=True
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
        [sys.executable, "-c", HOLDER + SLEEPING, store.url], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(LeaseError, match="run-a"):
        Lease.acquire(store, "run-b", ttl_s=0.2)
    holder.kill()
    holder.communicate()


@pytest.mark.parametrize("ahead_s", [-3600.0, 4 * 3600.0, 1e12])
def test_a_dead_run_elsewhere_gives_way_after_its_time_whatever_its_clock_said(
    conditional_store: Store, ahead_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere(conditional_store, renewed=time.time() + ahead_s)
    started, asked = time.monotonic(), time.time()
    lease = Lease.acquire(conditional_store, "run-a", ttl_s=1.0)
    # When it got the lease, not when it first asked for it.
    assert record(conditional_store).acquired >= asked + 1.0
    # The time to live, a poll, and a few requests.
    assert 1.0 < time.monotonic() - started < 1.0 + 0.25 + 2.0
    assert record(conditional_store).owner == "run-a"
    assert "in use by run-b (process 42 on node-7" in caplog.text
    lease.release()


def test_a_live_run_elsewhere_is_noticed_by_its_renewal(conditional_store: Store) -> None:
    elsewhere(conditional_store)
    renewing = threading.Timer(0.5, elsewhere, [conditional_store, 2.0])
    renewing.start()
    started = time.monotonic()
    with pytest.raises(LeaseError, match=r"run-b \(process 42 on node-7, since 1970-01-01"):
        Lease.acquire(conditional_store, "run-a", ttl_s=6.0)
    assert time.monotonic() - started < 4.0
    renewing.join()


def test_a_run_elsewhere_that_ends_while_it_is_waited_for_leaves_its_lease(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    elsewhere(store)
    ending = threading.Timer(0.3, store.delete, ["lease.json"])
    ending.start()
    started = time.monotonic()
    Lease.acquire(store, "run-a", ttl_s=60).release()
    assert time.monotonic() - started < 10
    ending.join()


def test_waiting_ends_when_the_run_is_to_stop(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    elsewhere(store)

    def check() -> None:
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        Lease.acquire(store, "run-a", ttl_s=60, check=check)
    assert record(store).owner == "run-b"


@pytest.mark.parametrize("held", [False, True])
def test_of_many_newcomers_one_wins(
    conditional_store: Store,
    held: bool,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a lease whose holder is dead, and without one."""
    # Eight threads on a busy machine: each write arrives within the pause all the same.
    monkeypatch.setattr(conditional, "SETTLE_S", 1.0)
    if held:
        elsewhere(conditional_store)
    barrier = threading.Barrier(8)
    leases: list[Lease] = []
    errors: list[str] = []

    def come(number: int) -> None:
        barrier.wait()
        try:
            leases.append(Lease.acquire(conditional_store, f"run-{number}", ttl_s=1.0))
        except LeaseError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=come, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(leases) == 1
    assert len(errors) == 7
    winner = record(conditional_store).owner
    # Without conditional writes one may be refused for a lease that is overwritten a moment later.
    if request.node.callspec.params["conditional_store"] == "plain-s3":
        winner = "run-"
    assert all(winner in error for error in errors)
    leases[0].release()
    assert not conditional_store.exists("lease.json")


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


def test_the_lease_is_renewed(conditional_store: Store) -> None:
    with Lease.acquire(conditional_store, "run-a", ttl_s=0.6) as lease:
        before = record(conditional_store)
        wait_until(lambda: record(conditional_store).renewed > before.renewed, 10)
        assert record(conditional_store).acquired == before.acquired
        assert lease.loss is None
    assert not conditional_store.exists("lease.json")


def test_a_run_that_was_taken_over_stops(conditional_store: Store) -> None:
    losses: list[LeaseError] = []
    lease = Lease.acquire(conditional_store, "run-a", ttl_s=0.6, on_lost=losses.append)
    by = elsewhere(conditional_store)
    wait_until(lambda: bool(losses), 10)
    assert lease.loss is not None
    assert re.search(r"taken over by run-b .*stops", str(lease.loss))
    assert len(losses) == 1
    lease.release()
    assert record(conditional_store) == by


def test_a_run_that_was_suspended_while_another_came_and_went_stops(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER.replace("600)", "1.0)", 1) + ENDING, store.url],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGSTOP)
    elsewhere(store)
    time.sleep(1.2)
    store.delete("lease.json")
    holder.send_signal(signal.SIGCONT)
    output, _ = holder.communicate(timeout=30)
    assert "may have been taken over and left again" in output
    assert not store.exists("lease.json")


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
        lambda: store.write_if_unchanged("new", b"", None),
        lambda: store.delete("status.json"),
    ):
        with pytest.raises(LeaseError, match="taken over by run-b"):
            change()
    assert store.read_bytes("status.json") == b"before"
    lease.release()


def test_a_lease_that_was_removed_is_written_again(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with Lease.acquire(store, "run-a", ttl_s=3.0) as lease:
        store.delete("lease.json")
        wait_until(lambda: store.exists("lease.json"), 10)
        assert record(store).owner == "run-a"
        assert lease.loss is None


def test_a_renewal_whose_answer_was_lost_costs_nothing(tmp_path: Path) -> None:
    """It is written, but the holder does not know the version."""
    store = Store(str(tmp_path))
    with Lease.acquire(store, "run-a", ttl_s=0.6) as lease:
        own = record(store)
        store.write_bytes(
            "lease.json", own.model_copy(update={"renewed": 1.0}).model_dump_json().encode()
        )
        wait_until(lambda: record(store).renewed > 1.0, 10)
        assert lease.loss is None


def test_a_damaged_lease_counts_as_none(conditional_store: Store) -> None:
    conditional_store.write_bytes("lease.json", b'{"owner": ')
    Lease.acquire(conditional_store, "run-b", ttl_s=60).release()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("pid", value) for value in (-1, 0, 2**31, 10**40, 0.5, None, [1])),
        *(("process_started", value) for value in (float("nan"), float("inf"), 1e308, -1.0)),
        *(("started_after_boot", value) for value in (float("nan"), float("-inf"), -1.0)),
        *(("acquired", value) for value in (float("nan"), float("inf"), 1e308)),
        *(("owner", value) for value in ("", "a\0b", "\x1b[2J", None)),
    ],
)
def test_no_value_in_a_lease_of_this_machine_is_an_internal_error(
    tmp_path: Path, field: str, value: object
) -> None:
    """Nobody holds it: it is damaged, or of a process that has ended."""
    store = Store(str(tmp_path))
    held = {**elsewhere(store).model_dump(), "machine": this_machine(), "pid": 2**30}
    store.write_bytes("lease.json", json.dumps({**held, field: value}).encode())
    assert version_held_by(store, [1]) is None
    Lease.acquire(store, "run-a", ttl_s=0.5).release()


def test_a_lease_of_a_later_version_is_respected(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    later = {**elsewhere(store).model_dump(), "epoch": 7}
    store.write_bytes("lease.json", json.dumps(later).encode())
    started = time.monotonic()
    Lease.acquire(store, "run-a", ttl_s=0.5).release()
    assert time.monotonic() - started > 0.5


def test_of_two_newcomers_one_wins(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HOLDER + SLEEPING, str(tmp_path)],
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
