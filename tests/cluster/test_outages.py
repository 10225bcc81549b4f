"""Minutes without store, operator, node or API server. `make soak-cluster` runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from cluster_runs import create_secret, put_images, tiny_run, trains
from kube import OPERATOR, Cluster, Kit, condition

from support.s3_server import S3

pytestmark = pytest.mark.soak

OUTAGE_S = 120.0
STATE = Path("/var/tmp/arlow-cluster")


def started(cluster: Cluster, s3: S3, namespace: str, folder: Path, **spec: Any) -> dict[str, Any]:
    """Starts a run, and returns its status when it trains and has a checkpoint."""
    create_secret(cluster, s3, namespace)
    run = tiny_run("run", namespace, s3, put_images(s3, folder / "images"))
    run["spec"] |= spec
    cluster.apply(run)
    return cluster.wait_for_status("run", namespace, trains(1))


def goes_on(before: dict[str, Any]) -> Any:
    """Returns whether a run trains above a status's checkpoint, in any attempt."""

    def holds(status: dict[str, Any]) -> bool:
        assert status.get("phase") not in ("Failed", "Succeeded"), status
        last = status.get("lastCheckpoint", {}).get("step", -1)
        return status.get("phase") == "Running" and last > before["lastCheckpoint"]["step"]

    return holds


def test_the_store_is_away_for_two_minutes(
    cluster: Cluster, cluster_s3: S3, namespace: str, tmp_path: Path
) -> None:
    before = started(cluster, cluster_s3, namespace, tmp_path)
    cluster_s3.process.send_signal(signal.SIGSTOP)
    try:
        time.sleep(OUTAGE_S)
    finally:
        cluster_s3.process.send_signal(signal.SIGCONT)
    after = cluster.wait_for_status("run", namespace, goes_on(before), 300)
    assert set(after["restarts"]["byCause"]) <= {"store"}


def test_the_operator_is_away_for_two_minutes_and_a_pod_is_evicted_meanwhile(
    cluster: Cluster, cluster_s3: S3, namespace: str, tmp_path: Path
) -> None:
    before = started(cluster, cluster_s3, namespace, tmp_path)
    cluster.kubectl("scale", *OPERATOR, "--replicas=0")
    try:
        [pod] = cluster.pods("run", namespace)
        cluster.evict(pod["metadata"]["name"], namespace)
        time.sleep(OUTAGE_S)
    finally:
        cluster.kubectl("scale", *OPERATOR, "--replicas=1")
    after = cluster.wait_for_status("run", namespace, goes_on(before), 300)
    assert after["attempt"]["number"] == 2
    # Nobody saw the pod's end, which was there for a second.
    assert after["restarts"]["byCause"] == {"unknown": 1}


def test_a_node_is_lost_while_its_containers_run_on(
    cluster: Cluster, cluster_s3: S3, namespace: str, tmp_path: Path, kit: Kit
) -> None:
    before = started(cluster, cluster_s3, namespace, tmp_path)
    [pod] = cluster.pods("run", namespace)
    node = pod["spec"]["nodeName"]
    number = node.rpartition("-")[2]
    # Were the operator on it, it would be lost as well, and only come back minutes later.
    cluster.keep_operator_off(node)
    kit.run("node", "lose", number)
    lost_at = time.monotonic()
    try:
        after = cluster.wait_for_status("run", namespace, goes_on(before), 400)
        print(f"node lost to next checkpoint: {time.monotonic() - lost_at:.0f} s")
        assert after["restarts"]["byCause"] == {"disruption": 1}
        assert f"node {node} does not answer" in after["restarts"]["last"][0]["message"]
        assert node not in after["attempt"]["nodes"]
    finally:
        kit.run("node", "find", number)
        cluster.keep_operator_off("")
    deadline = time.monotonic() + 120
    while len(pods := cluster.pods("run", namespace)) > 1:
        assert time.monotonic() < deadline, [each["metadata"]["name"] for each in pods]
        time.sleep(1)
    found = cluster.wait_for_status("run", namespace, goes_on(after))
    assert found["restarts"]["total"] == 1


@pytest.mark.parametrize("part", ["apiserver", "etcd"])
def test_a_part_of_the_control_plane_is_killed(
    cluster: Cluster, cluster_s3: S3, namespace: str, tmp_path: Path, kit: Kit, part: str
) -> None:
    before = started(cluster, cluster_s3, namespace, tmp_path)
    [pod] = cluster.pods("run", namespace)
    os.kill(int((STATE / "run" / f"{part}.pid").read_text()), signal.SIGKILL)
    time.sleep(30)
    kit.run("up")
    after = cluster.wait_for_status("run", namespace, goes_on(before), 300)
    # The run has noticed nothing.
    assert after["attempt"]["number"] == 1
    assert [each["metadata"]["uid"] for each in cluster.pods("run", namespace)] == [
        pod["metadata"]["uid"]
    ]


def test_traffic_to_status_is_cut_and_nothing_is_restarted(
    cluster: Cluster, cluster_s3: S3, namespace: str, tmp_path: Path
) -> None:
    """The kit enforces no NetworkPolicy: iptables on its bridge stands in for one."""
    if os.geteuid() != 0 or not STATE.exists():
        pytest.skip("it cuts traffic with iptables on the bridge of the kit's cluster, as root")
    policy = {"stall": {"minSeconds": 10, "factor": 5}}
    before = started(cluster, cluster_s3, namespace, tmp_path, failurePolicy=policy)
    [pod] = cluster.pods("run", namespace)
    rule = ["FORWARD", "-p", "tcp", "-d", pod["status"]["podIP"], "--dport", "9100", "-j", "DROP"]
    subprocess.run(["iptables", "-I", *rule], check=True)
    try:
        cut = cluster.wait_for_status(
            "run", namespace, lambda s: "add a NetworkPolicy" in s.get("message", ""), 60
        )
        assert condition(cut, "Running")["reason"] == "Unreachable"
        time.sleep(60)
    finally:
        subprocess.run(["iptables", "-D", *rule], check=True)
    after = cluster.wait_for_status("run", namespace, goes_on(before))
    assert after["restarts"]["total"] == 0
    assert after["message"] == ""
