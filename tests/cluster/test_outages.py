"""Minutes without store, operator or API server. `make soak-cluster` runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from cluster_runs import TinyRuns, goes_on, restarted, told
from kube import Cluster, Kit, condition

pytestmark = pytest.mark.soak

OUTAGE_S = 120.0
STATE = Path("/var/tmp/arlow-cluster")


def test_the_store_is_away_for_two_minutes(runs: TinyRuns) -> None:
    runs.start()
    runs.s3.process.send_signal(signal.SIGSTOP)
    try:
        time.sleep(OUTAGE_S)
    finally:
        runs.s3.process.send_signal(signal.SIGCONT)
    after = runs.wait("run", goes_on(runs.status()))
    assert set(after["restarts"]["byCause"]) <= {"store"}


def test_the_operator_is_away_for_two_minutes_and_a_pod_is_evicted_meanwhile(
    cluster: Cluster, runs: TinyRuns
) -> None:
    before = runs.start()
    cluster.scale_operator(0)
    try:
        [pod] = runs.pods()
        cluster.evict(pod["metadata"]["name"], runs.namespace)
        time.sleep(OUTAGE_S)
    finally:
        cluster.scale_operator(1)
    after = runs.wait("run", restarted(before))
    # Nobody saw the pod's end, which was there for a second.
    assert after["restarts"]["byCause"] == {"unknown": 1}


@pytest.mark.parametrize("part", ["apiserver", "etcd"])
def test_a_part_of_the_control_plane_is_killed(runs: TinyRuns, kit: Kit, part: str) -> None:
    runs.start()
    [pod] = runs.pods()
    os.kill(int((STATE / "run" / f"{part}.pid").read_text()), signal.SIGKILL)
    time.sleep(30)
    kit.run("up")
    after = runs.wait("run", goes_on(runs.status()))
    # The run has noticed nothing.
    assert after["attempt"]["number"] == 1
    assert [each["metadata"]["uid"] for each in runs.pods()] == [pod["metadata"]["uid"]]


def test_traffic_to_status_is_cut_and_nothing_is_restarted(runs: TinyRuns) -> None:
    """The kit enforces no NetworkPolicy: iptables on its bridge stands in for one."""
    if os.geteuid() != 0 or not STATE.exists():
        pytest.skip("it cuts traffic with iptables on the bridge of the kit's cluster, as root")
    runs.start(failurePolicy={"stall": {"minSeconds": 10, "factor": 5}})
    [pod] = runs.pods()
    rule = ["FORWARD", "-p", "tcp", "-d", pod["status"]["podIP"], "--dport", "9100", "-j", "DROP"]
    subprocess.run(["iptables", "-I", *rule], check=True)
    try:
        cut = runs.wait("run", told("add a NetworkPolicy"), 60)
        assert condition(cut, "Running")["reason"] == "Unreachable"
        time.sleep(60)
    finally:
        subprocess.run(["iptables", "-D", *rule], check=True)
    after = runs.wait("run", goes_on(cut))
    assert after["restarts"]["total"] == 0
    assert after["message"] == ""
