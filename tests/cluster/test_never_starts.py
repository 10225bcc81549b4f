"""What keeps a run from starting is in its status within seconds."""

from __future__ import annotations

from typing import Any

import pytest
from cluster_runs import create_secret, tiny_run
from kube import Cluster, condition

from support.s3_server import S3

WITHIN_S = 30.0


def told(words: str) -> Any:
    return lambda status: words in status.get("message", "")


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
def obstructed(cluster: Cluster, cluster_s3: S3) -> Any:
    """A namespace with a run for each obstacle, all made at once."""
    name = "arlow-obstacles"
    cluster.create_namespace(name)
    create_secret(cluster, cluster_s3, name)
    for run_name, (spec, _) in OBSTACLES.items():
        run = tiny_run(run_name, name, cluster_s3, "s3://bucket/images")
        for section, value in spec.items():
            both = isinstance(value, dict) and isinstance(run["spec"].get(section), dict)
            run["spec"][section] = run["spec"][section] | value if both else value
        cluster.apply(run)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.mark.parametrize("name", OBSTACLES)
def test_an_obstacle_is_told(cluster: Cluster, obstructed: str, name: str) -> None:
    status = cluster.wait_for_status(name, obstructed, told(OBSTACLES[name][1]), WITHIN_S)
    assert condition(status, "Running")["status"] == "False"
    if name in ("hostname", "count", "shape"):
        assert condition(status, "Validated")["status"] == "False"
        assert cluster.items("jobs", obstructed, f"arlow.dev/run={name}") == []


def test_a_quota_that_is_exceeded_is_told_and_left_when_it_is_raised(
    cluster: Cluster, cluster_s3: S3, namespace: str
) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "pods", "namespace": namespace},
        "spec": {"hard": {"pods": "0"}},
    }
    cluster.apply(quota)
    create_secret(cluster, cluster_s3, namespace)
    run = tiny_run("run", namespace, cluster_s3, "s3://bucket/images")
    run["spec"] |= {"image": "localhost/missing:1", "imagePullPolicy": "Never"}
    cluster.apply(run)
    cluster.wait_for_status("run", namespace, told("exceeded quota: pods"), WITHIN_S)
    cluster.apply({**quota, "spec": {"hard": {"pods": "1"}}})
    cluster.wait_for_status("run", namespace, told("ErrImageNeverPull"), 90)
