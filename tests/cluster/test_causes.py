"""How containers end for real, and the cause that is told."""

from __future__ import annotations

from pathlib import Path

from cluster_runs import create_secret, put_images, tiny_run, trains
from kube import Cluster, Kit

from support.s3_server import S3


def test_a_killed_container_goes_on_from_the_checkpoint(
    cluster: Cluster, cluster_s3: S3, namespace: str, tmp_path: Path, kit: Kit
) -> None:
    create_secret(cluster, cluster_s3, namespace)
    images = put_images(cluster_s3, tmp_path / "images")
    cluster.apply(tiny_run("killed", namespace, cluster_s3, images))
    first = cluster.wait_for_status("killed", namespace, trains(1))
    [pod] = cluster.pods("killed", namespace)
    kit.run("kill", pod["metadata"]["name"], namespace)
    step = first["lastCheckpoint"]["step"]
    second = cluster.wait_for_status("killed", namespace, trains(2, step))
    # It could say nothing, and the kubelet says Error.
    assert second["restarts"]["byCause"] == {"unknown": 1}
    assert second["restarts"]["last"][0]["exitCode"] == 137
    assert second["restarts"]["last"][0]["node"] == pod["spec"]["nodeName"]


def test_a_pod_that_runs_out_of_memory_says_so(
    cluster: Cluster, cluster_s3: S3, namespace: str
) -> None:
    create_secret(cluster, cluster_s3, namespace)
    run = tiny_run("memory", namespace, cluster_s3, "s3://bucket/images")
    run["spec"]["nodes"]["memory"] = "128Mi"
    run["spec"]["failurePolicy"] = {"maxRestarts": {"outOfMemory": 0}}
    cluster.apply(run)
    status = cluster.wait_for_status("memory", namespace, lambda s: s.get("phase") == "Failed")
    assert "ended once for the cause outOfMemory" in status["message"]
    assert "raise spec.nodes.memory" in status["message"]
