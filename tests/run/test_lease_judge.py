"""Who may hold a run URL: a table of leases found and what a new run may do."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from arlow_trainer.run import lease
from arlow_trainer.run.lease import (
    LeaseRecord,
    Verdict,
    holder_name,
    judge,
    process_alive,
    this_machine,
)

TTL = 60.0


def held(machine: str = "here", **changes: object) -> LeaseRecord:
    fields: dict[str, object] = {
        "owner": "run",
        "token": "t",
        "host": "h",
        "machine": machine,
        "pid": os.getpid(),
        "process_started": psutil.Process().create_time(),
        "acquired": 0.0,
        "renewed": 0.0,
    }
    return LeaseRecord.model_validate({**fields, **changes})


@pytest.mark.parametrize(
    ("found", "alive", "changed", "unchanged", "expected"),
    [
        (None, None, False, 0, Verdict.FREE),
        (None, None, True, 0, Verdict.FREE),
        # Suspended for any time: it continues to write when it is resumed.
        (held(), True, False, 0, Verdict.REFUSED),
        (held(), True, False, 100 * TTL, Verdict.REFUSED),
        (held(), False, False, 0, Verdict.TAKE_OVER),
        (held(), False, True, 100 * TTL, Verdict.TAKE_OVER),
        (held("elsewhere"), None, False, 0, Verdict.WAIT),
        (held("elsewhere"), None, False, TTL, Verdict.WAIT),
        (held("elsewhere"), None, False, TTL + 1, Verdict.TAKE_OVER),
        (held("elsewhere"), None, True, 0, Verdict.REFUSED),
        (held("elsewhere"), None, True, TTL + 1, Verdict.REFUSED),
        # Its clock says nothing.
        (held("elsewhere", renewed=1e12), None, False, TTL + 1, Verdict.TAKE_OVER),
    ],
)
def test_decisions(
    found: LeaseRecord | None,
    alive: bool | None,
    changed: bool,
    unchanged: float,
    expected: Verdict,
) -> None:
    def holder_alive(record: LeaseRecord) -> bool:
        assert alive is not None, "processes of another machine must not be asked about"
        return alive

    verdict = judge(
        found,
        machine="here",
        holder_alive=holder_alive,
        changed=changed,
        unchanged_s=unchanged,
        ttl_s=TTL,
    )
    assert verdict is expected


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, "vision"),
        ({"HOSTNAME": "laptop"}, "vision"),
        ({"ARLOW_ATTEMPT": "3"}, "vision, attempt 3"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "vision-0"}, "vision, pod vision-0"),
        (
            {
                "KUBERNETES_SERVICE_HOST": "10.0.0.1",
                "HOSTNAME": "node",
                "ARLOW_POD": "vision-3-0-x7f",
                "ARLOW_ATTEMPT": "3",
            },
            "vision, attempt 3, pod vision-3-0-x7f",
        ),
    ],
)
def test_a_holder_is_named_by_its_attempt(environment: dict[str, str], name: str) -> None:
    assert holder_name("vision", environment) == name


def test_this_process_lives() -> None:
    assert process_alive(held())


def test_a_clock_that_is_set_makes_no_run_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a process's creation is counted from the boot's, which moves with the clock."""
    ours = lease._new_record("run")
    assert process_alive(ours.model_copy(update={"process_started": ours.process_started - 3600}))
    later = ours.process_started + 3600
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: later)
    assert process_alive(ours)
    assert ours.started_after_boot is not None
    other = {"started_after_boot": ours.started_after_boot - 10}
    assert not process_alive(ours.model_copy(update=other))


def test_a_number_given_to_another_process_is_a_dead_holder() -> None:
    assert not process_alive(held(process_started=1.0))


def test_a_process_that_ended_is_dead_before_and_after_it_is_waited_for() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = psutil.Process(process.pid).create_time()
    record = held(pid=process.pid, process_started=started)
    assert process_alive(record)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not process_alive(record)
    process.communicate()
    assert not process_alive(record)


def test_the_machine_is_the_same_from_every_process_on_it() -> None:
    script = "from arlow_trainer.run.lease import this_machine; print(this_machine())"
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert other.stdout.decode().strip() == this_machine()
