"""What befalls the node of a run. `make soak-cluster` runs these."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cluster_runs import TinyRuns, goes_on, restarted
from kube import TRAINER_IMAGE, Cluster, Kit

pytestmark = pytest.mark.soak


def node_of(runs: TinyRuns) -> str:
    [pod] = runs.pods()
    return str(pod["spec"]["nodeName"])


def assert_disrupted(status: dict[str, Any], words: str) -> None:
    assert status["restarts"]["byCause"] == {"disruption": 1}
    assert status["restarts"]["spent"] == {}
    assert words in status["restarts"]["last"][0]["message"]


def test_a_node_is_drained(cluster: Cluster, runs: TinyRuns) -> None:
    before = runs.start()
    node = node_of(runs)
    try:
        options = ("--pod-selector=arlow.dev/run=run", "--delete-emptydir-data", "--timeout=60s")
        cluster.kubectl("drain", node, *options)
        after = runs.wait("run", restarted(before))
        assert_disrupted(after, "was evicted, as by a drain")
        assert node not in after["attempt"]["nodes"]
    finally:
        cluster.kubectl("uncordon", node)


def test_a_node_shuts_down(cluster: Cluster, runs: TinyRuns) -> None:
    """A kubelet that shuts down in order marks its pods, and then ends them."""
    before = runs.start()
    [pod] = runs.pods()
    mark = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}
    mark["message"] = "Pod was terminated in response to imminent node shutdown."
    target = ("pod", pod["metadata"]["name"], "-n", runs.namespace, "--subresource=status")
    patch = json.dumps({"status": {"conditions": [mark]}})
    cluster.kubectl("patch", *target, "--type=strategic", "-p", patch)
    cluster.python_in(pod, "import os; os.kill(1, 15)")
    after = runs.wait("run", restarted(before))
    assert_disrupted(after, "was ended by its node, which shuts down")


def test_a_pod_of_higher_priority_preempts_a_run(cluster: Cluster, runs: TinyRuns) -> None:
    before = runs.start(nodes={"gpus": 1})
    node, name = node_of(runs), runs.namespace
    container = {
        "name": "main",
        "image": TRAINER_IMAGE,
        "command": ["sleep", "infinity"],
        "resources": {"limits": {"nvidia.com/gpu": "8"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "priorityClassName": name,
        "nodeSelector": {"kubernetes.io/hostname": node},
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }
    metadata = {"name": "urgent", "namespace": name}
    try:
        cluster.apply(
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": name},
                "value": 1000,
            },
            {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec},
        )
        after = runs.wait("run", restarted(before))
        assert_disrupted(after, "was preempted by one of a higher priority")
        assert node not in after["attempt"]["nodes"]
    finally:
        cluster.kubectl("delete", "priorityclass", name)


def start_beside_kueue(cluster: Cluster, runs: TinyRuns) -> dict[str, Any]:
    """Starts a run on a node without Kueue, whose webhook every new Job has to pass."""
    taken = {pod["spec"]["nodeName"] for pod in cluster.items("pods", "kueue-system")}
    nodes = json.loads(cluster.kubectl("get", "nodes", "-l", "type!=kwok", "-o", "json"))["items"]
    free = next(name for node in nodes if (name := node["metadata"]["name"]) not in taken)
    status = runs.start(nodes={"nodeSelector": {"kubernetes.io/hostname": free}})
    # The next attempt may run elsewhere.
    runs.patch(nodes={"nodeSelector": None})
    return status


@contextmanager
def lost(cluster: Cluster, kit: Kit, node: str) -> Iterator[None]:
    """Has the node of a run lost, and found at the end."""
    number = node.rpartition("-")[2]
    # Were the operator on it, it would be lost as well, and only come back minutes later.
    cluster.keep_operator_off(node)
    kit.run("node", "lose", number)
    try:
        yield
    finally:
        kit.run("node", "find", number)
        cluster.keep_operator_off("")


def test_a_node_is_lost_with_its_containers(cluster: Cluster, runs: TinyRuns, kit: Kit) -> None:
    before = start_beside_kueue(cluster, runs)
    [pod] = runs.pods()
    node = node_of(runs)
    with lost(cluster, kit, node):
        kit.run("kill", pod["metadata"]["name"], runs.namespace)
        lost_at = time.monotonic()
        after = runs.wait("run", restarted(before), 400)
        print(f"node lost to next checkpoint: {time.monotonic() - lost_at:.0f} s")
        assert_disrupted(after, f"node {node} does not answer")
        assert node not in after["attempt"]["nodes"]


def test_a_node_is_lost_while_its_containers_run_on(
    cluster: Cluster, runs: TinyRuns, kit: Kit
) -> None:
    start_beside_kueue(cluster, runs)
    with lost(cluster, kit, node_of(runs)):
        # The pod on it makes steps and holds the lease of the run's URL.
        held = runs.wait("run", lambda s: s["restarts"]["byCause"].get("store") == 2, 400)
        assert "is in use by run, attempt 1" in held["restarts"]["last"][0]["message"]
        assert held["restarts"]["spent"] == {"total": 2, "store": 2}
    # Found, its kubelet ends that pod, and the next attempt goes on from what it has saved.
    after = runs.wait("run", goes_on(held))
    assert set(after["restarts"]["byCause"]) == {"disruption", "store"}
    [pod] = runs.pods()
    assert pod["metadata"]["labels"]["arlow.dev/attempt"] == str(after["attempt"]["number"])
