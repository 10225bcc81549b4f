"""Runs that the real Kueue starts and stops. Skips where the cluster has no Kueue."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_runs import create_secret, put_images, tiny_run, trains
from kube import Cluster, Refused, condition, in_phase

from support.s3_server import S3

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


def queued_run(
    name: str, namespace: str, s3: S3, images: str, labels: dict[str, str]
) -> dict[str, Any]:
    """Returns a run of one GPU."""
    run = tiny_run(name, namespace, s3, images)
    run["metadata"]["labels"] = labels
    run["spec"]["nodes"] = {"gpus": 1, "memory": "2Gi"}
    return run


def waits_with(words: str) -> Any:
    return lambda s: s.get("phase") == "Queued" and words in s.get("message", "")


def test_runs_share_a_queue(
    cluster: Cluster, cluster_s3: S3, namespace: str, queue: str, tmp_path: Path
) -> None:
    create_secret(cluster, cluster_s3, namespace)
    images = put_images(cluster_s3, tmp_path / "images")

    def run(name: str, **labels: str) -> dict[str, Any]:
        return queued_run(name, namespace, cluster_s3, images, {QUEUE: queue} | labels)

    # The first is admitted, the second waits and is told for what.
    cluster.apply(run("first"))
    first = cluster.wait_for_status("first", namespace, trains(1))
    cluster.apply(run("second"))
    cluster.wait_for_status("second", namespace, waits_with("nvidia.com/gpu"))
    cluster.patch_spec("second", namespace, suspend=True)
    cluster.wait_for_status("second", namespace, in_phase("Suspended"))

    # One of a higher priority displaces it: it saves, and no budget is spent.
    step = first["lastCheckpoint"]["step"]
    cluster.apply(run("urgent") | {})
    cluster.wait_for_status("urgent", namespace, in_phase("Queued"))
    cluster.kubectl("delete", "apt", "urgent", "-n", namespace)
    urgent = run("urgent-2", **{PRIORITY: namespace})
    cluster.apply(urgent)
    evicted = cluster.wait_for_status("first", namespace, in_phase("Queued"))
    cluster.wait_for_status("urgent-2", namespace, trains(1))
    evicted = cluster.wait_for_status("first", namespace, waits_with("nvidia.com/gpu"))
    assert evicted["restarts"]["total"] == 0
    assert evicted["attempt"]["number"] == 1
    assert evicted["lastCheckpoint"]["step"] >= step

    # Suspended, that one gives its place back, and the first goes on from its checkpoint.
    cluster.patch_spec("urgent-2", namespace, suspend=True)
    cluster.wait_for_status("urgent-2", namespace, in_phase("Suspended"))
    resumed = cluster.wait_for_status(
        "first", namespace, trains(1, evicted["lastCheckpoint"]["step"])
    )
    assert resumed["restarts"]["total"] == 0
    assert resumed["goodput"]["queuedSeconds"] > 0


def test_what_kueue_never_starts_is_told(
    cluster: Cluster, cluster_s3: S3, namespace: str, queue: str
) -> None:
    create_secret(cluster, cluster_s3, namespace)
    for name, labels, words in (
        ("typo", {QUEUE: "typo"}, "LocalQueue typo doesn't exist"),
        ("class", {QUEUE: queue, PRIORITY: "typo"}, "is 'typo' a WorkloadPriorityClass?"),
    ):
        cluster.apply(queued_run(name, namespace, cluster_s3, "s3://bucket/images", labels))
        status = cluster.wait_for_status(name, namespace, waits_with(words), 40)
        assert condition(status, "Running")["status"] == "False"
