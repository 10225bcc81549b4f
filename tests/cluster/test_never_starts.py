"""What keeps a run from starting is in its status within seconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cluster_runs import TinyRuns, told
from kube import Cluster, condition

from support.s3_server import S3

WITHIN_S = 30.0


OBSTACLES: dict[str, tuple[dict[str, Any], str]] = {
    "image": (
        {"image": "localhost/missing:1", "imagePullPolicy": "Never"},
        "cannot start yet: ErrImageNeverPull",
    ),
    "secret": (
        {"imagePullPolicy": "IfNotPresent", "checkpoint": {"secretRef": {"name": "nowhere"}}},
        'secret "nowhere" not found',
    ),
    "account": ({"serviceAccountName": "nobody"}, 'serviceaccount "nobody" not found'),
    "claim": (
        {"dataVolumes": [{"claimName": "nothing", "mountPath": "/data"}]},
        'persistentvolumeclaim "nothing" not found',
    ),
    "cache": (
        {"cacheVolume": {"size": "1Gi", "storageClassName": "nowhere"}},
        "no node takes the pod:",
    ),
    "gpus": ({"nodes": {"gpus": 64}}, "no node takes the pod:"),
    "priority": ({"priorityClassName": "nope"}, "no PriorityClass with name nope was found"),
    "patch": (
        {"podTemplatePatch": {"spec": {"hostNetwrk": True}}},
        'unknown field "spec.template.spec.hostNetwrk"',
    ),
    "privileged": (
        {"podTemplatePatch": {"spec": {"hostNetwork": True}}},
        'violates PodSecurity "restricted:latest": host namespaces (hostNetwork=true)',
    ),
    "hostname": (
        {"podTemplatePatch": {"spec": {"hostname": "me"}}},
        "spec.podTemplatePatch.spec.hostname: is the operator's own",
    ),
    "count": ({"nodes": {"count": 2}}, "spec.nodes.count: 2 is not possible yet; allowed: 1"),
    "shape": (
        {"training": {"data": {"imageSize": 25}}},
        "spec.training.data.imageSize: 25 is not allowed; allowed: a multiple of",
    ),
}


@pytest.fixture(scope="module")
def obstructed(cluster: Cluster, cluster_s3: S3, images: str) -> Iterator[TinyRuns]:
    """A namespace with a run for each obstacle, all made at once."""
    runs = TinyRuns(cluster, "arlow-obstacles", cluster_s3, images)
    cluster.create_namespace(runs.namespace)
    runs.create_secret()
    cluster.apply(*(runs.manifest(name, **spec) for name, (spec, _) in OBSTACLES.items()))
    yield runs
    cluster.kubectl("delete", "namespace", runs.namespace, "--wait=false")


@pytest.mark.parametrize("name", OBSTACLES)
def test_an_obstacle_is_told(cluster: Cluster, obstructed: TinyRuns, name: str) -> None:
    status = obstructed.wait(name, told(OBSTACLES[name][1]), WITHIN_S)
    assert condition(status, "Running")["status"] == "False"
    if name in ("hostname", "count", "shape"):
        assert condition(status, "Validated")["status"] == "False"
        assert cluster.items("jobs", obstructed.namespace, f"arlow.dev/run={name}") == []


def test_a_quota_that_is_exceeded_is_told_and_left_when_it_is_raised(
    cluster: Cluster, runs: TinyRuns
) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "pods", "namespace": runs.namespace},
        "spec": {"hard": {"pods": "0"}},
    }
    cluster.apply(quota)
    cluster.apply(runs.idle())
    runs.wait("run", told("exceeded quota: pods"), WITHIN_S)
    cluster.apply({**quota, "spec": {"hard": {"pods": "1"}}})
    runs.wait("run", told("ErrImageNeverPull"), 90)


def test_nodes_whose_gpus_are_shared_are_not_taken(cluster: Cluster, runs: TinyRuns) -> None:
    label = "nvidia.com/gpu.sharing-strategy"
    cluster.kubectl("label", "nodes", "--all", "--overwrite", f"{label}=time-slicing")
    try:
        cluster.apply(runs.idle(nodes={"gpus": 1}))
        runs.wait("run", told(f"whose GPUs are whole: neither shared ({label})"), WITHIN_S)
    finally:
        cluster.kubectl("label", "nodes", "--all", f"{label}-")
    runs.wait("run", told("ErrImageNeverPull"), WITHIN_S)
