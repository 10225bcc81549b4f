"""Runs that the real Kueue starts and stops. Skips where the cluster has no Kueue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cluster_runs import TinyRuns, trains
from kube import Cluster, Refused, condition, in_phase

QUEUE = "kueue.x-k8s.io/queue-name"
PRIORITY = "kueue.x-k8s.io/priority-class"
API = "kueue.x-k8s.io/v1beta2"
COVERED = ("cpu", "memory", "ephemeral-storage", "nvidia.com/gpu")


@pytest.fixture
def queue(cluster: Cluster, namespace: str) -> Iterator[str]:
    """A LocalQueue of one GPU, in which runs of a higher priority displace others."""
    try:
        cluster.kubectl("get", "crd", "clusterqueues.kueue.x-k8s.io")
    except Refused:
        pytest.skip("the cluster has no Kueue: install it, as .ci/run does with the kit's `add`")
    quotas = [
        {"name": name, "nominalQuota": "1" if name == "nvidia.com/gpu" else "500Gi"}
        for name in COVERED
    ]
    flavors = [{"name": namespace, "resources": quotas}]
    cluster.apply(
        {"apiVersion": API, "kind": "ResourceFlavor", "metadata": {"name": namespace}},
        {
            "apiVersion": API,
            "kind": "ClusterQueue",
            "metadata": {"name": namespace},
            "spec": {
                "namespaceSelector": {},
                "preemption": {"withinClusterQueue": "LowerPriority"},
                "resourceGroups": [{"coveredResources": list(COVERED), "flavors": flavors}],
            },
        },
        {
            "apiVersion": API,
            "kind": "LocalQueue",
            "metadata": {"name": "vision", "namespace": namespace},
            "spec": {"clusterQueue": namespace},
        },
        {
            "apiVersion": API,
            "kind": "WorkloadPriorityClass",
            "metadata": {"name": namespace},
            "value": 1000,
        },
    )
    yield "vision"
    names = ("clusterqueue", "resourceflavor", "workloadpriorityclass")
    for kind in names:
        cluster.kubectl("delete", f"{kind}.kueue.x-k8s.io", namespace, "--wait=false")


def queued(runs: TinyRuns, name: str, labels: dict[str, str]) -> dict[str, Any]:
    """Returns a run of one GPU."""
    run = runs.manifest(name, nodes={"gpus": 1})
    run["metadata"]["labels"] = labels
    return run


def waits_with(words: str) -> Any:
    return lambda s: s.get("phase") == "Queued" and words in s.get("message", "")


def test_runs_share_a_queue(cluster: Cluster, runs: TinyRuns, queue: str) -> None:
    def run(name: str, **labels: str) -> dict[str, Any]:
        return queued(runs, name, {QUEUE: queue} | labels)

    # The first is admitted, the second waits and is told for what.
    cluster.apply(run("first"))
    first = runs.wait("first", trains(1))
    cluster.apply(run("second"))
    runs.wait("second", waits_with("nvidia.com/gpu"))
    runs.patch("second", suspend=True)
    runs.wait("second", in_phase("Suspended"))

    # One of a higher priority displaces it: it saves, and no budget is spent.
    step = first["lastCheckpoint"]["step"]
    cluster.apply(run("urgent"))
    runs.wait("urgent", in_phase("Queued"))
    runs.delete("urgent")
    urgent = run("urgent-2", **{PRIORITY: runs.namespace})
    cluster.apply(urgent)
    evicted = runs.wait("first", in_phase("Queued"))
    runs.wait("urgent-2", trains(1))
    evicted = runs.wait("first", waits_with("nvidia.com/gpu"))
    assert evicted["restarts"]["total"] == 0
    assert evicted["attempt"]["number"] == 1
    assert evicted["lastCheckpoint"]["step"] >= step

    # Suspended, that one gives its place back, and the first goes on from its checkpoint.
    runs.patch("urgent-2", suspend=True)
    runs.wait("urgent-2", in_phase("Suspended"))
    resumed = runs.wait("first", trains(1, evicted["lastCheckpoint"]["step"]))
    assert resumed["restarts"]["total"] == 0
    assert resumed["goodput"]["queuedSeconds"] > 0


def test_what_kueue_never_starts_is_told(cluster: Cluster, runs: TinyRuns, queue: str) -> None:
    for name, labels, words in (
        ("typo", {QUEUE: "typo"}, "LocalQueue typo doesn't exist"),
        ("class", {QUEUE: queue, PRIORITY: "typo"}, "is 'typo' a WorkloadPriorityClass?"),
    ):
        cluster.apply(queued(runs, name, labels))
        status = runs.wait(name, waits_with(words), 40)
        assert condition(status, "Running")["status"] == "False"


def test_a_workload_that_is_deactivated_is_told(
    cluster: Cluster, runs: TinyRuns, queue: str
) -> None:
    run = runs.idle(nodes={"gpus": 1})
    run["metadata"]["labels"] = {QUEUE: queue}
    cluster.apply(run)
    runs.wait("run", in_phase("Starting"), 60)
    [workload] = cluster.items("workloads.kueue.x-k8s.io", runs.namespace)
    target = ("workload.kueue.x-k8s.io", workload["metadata"]["name"], "-n", runs.namespace)
    cluster.kubectl("patch", *target, "--type=merge", "-p", '{"spec":{"active":false}}')
    runs.wait("run", waits_with("Kueue has deactivated the Workload"), 60)


def test_a_default_queue_takes_runs_that_name_none(
    cluster: Cluster, runs: TinyRuns, queue: str
) -> None:
    metadata = {"name": "default", "namespace": runs.namespace}
    cluster.apply(
        {
            "apiVersion": API,
            "kind": "LocalQueue",
            "metadata": metadata,
            "spec": {"clusterQueue": runs.namespace},
        }
    )
    cluster.apply(runs.idle(nodes={"gpus": 2}))
    words = "queued in the LocalQueue default (the run names none, and the namespace has a default)"
    status = runs.wait("run", waits_with(words), 60)
    assert condition(status, "Running")["reason"] == "Queued"
