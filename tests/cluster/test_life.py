"""What befalls a run, and that it goes on from its newest checkpoint."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import fsspec
from cluster_runs import create_secret, put_images, tiny_run, trains
from kube import Cluster, condition

from support.s3_server import S3


def signal_rank(cluster: Cluster, pod: dict[str, Any], name: str) -> None:
    """Sends a signal to rank 1, which is no first process: from inside those take none."""
    code = (
        f"import os, psutil, signal; os.kill(next(p.pid for p in psutil.process_iter()"
        f" if p.environ().get('RANK') == '1'), signal.{name})"
    )
    metadata = pod["metadata"]
    target = (metadata["name"], "-n", metadata["namespace"])
    cluster.kubectl("exec", *target, "--", "python3", "-c", code)


def test_a_run_lives_through_disruptions(
    cluster: Cluster, cluster_s3: S3, namespace: str, tmp_path: Path
) -> None:
    create_secret(cluster, cluster_s3, namespace)
    images = put_images(cluster_s3, tmp_path / "images")
    cluster.apply(tiny_run("tiny", namespace, cluster_s3, images))
    first = cluster.wait_for_status("tiny", namespace, trains(1))
    step = first["lastCheckpoint"]["step"]

    # A pod is deleted: a checkpoint is saved, and the next attempt goes on from it.
    [pod] = cluster.pods("tiny", namespace)
    cluster.kubectl("delete", "pod", pod["metadata"]["name"], "-n", namespace, "--wait=false")
    second = cluster.wait_for_status("tiny", namespace, trains(2, step))
    assert second["restarts"]["byCause"] == {"disruption": 1}
    assert second["restarts"]["spent"] == {}
    step = second["lastCheckpoint"]["step"]

    # Suspended: nothing runs, and the checkpoint is kept.
    cluster.patch_spec("tiny", namespace, suspend=True)
    suspended = cluster.wait_for_status(
        "tiny", namespace, lambda s: condition(s, "Suspended")["status"] == "True"
    )
    # The last sign of a pod that has ended stays for a second.
    assert all(pod["status"]["phase"] == "Failed" for pod in cluster.pods("tiny", namespace))
    assert cluster.items("jobs", namespace) == []
    assert suspended["lastCheckpoint"]["step"] >= step
    step = suspended["lastCheckpoint"]["step"]
    cluster.patch_spec("tiny", namespace, suspend=False)
    cluster.wait_for_status("tiny", namespace, trains(3, step))

    # Another operator takes over: the pod runs on.
    [pod] = cluster.pods("tiny", namespace)
    cluster.restart_operator()
    seen = cluster.wait_for_status("tiny", namespace, trains(3, step))
    [still] = cluster.pods("tiny", namespace)
    assert still["metadata"]["uid"] == pod["metadata"]["uid"]
    step = seen["lastCheckpoint"]["step"]

    # Its Job is deleted by hand, and the run goes on as well.
    cluster.kubectl("delete", "job", "tiny-3", "-n", namespace, "--wait=false")
    fourth = cluster.wait_for_status("tiny", namespace, trains(4, step))
    assert fourth["restarts"]["total"] == 2

    # Deleted: it stops within its grace, all that was made for it goes, the checkpoints stay.
    url = fourth["lastCheckpoint"]["url"]
    cluster.kubectl("delete", "apt", "tiny", "-n", namespace)
    deadline = time.monotonic() + 60
    while cluster.pods("tiny", namespace):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert cluster.items("services", namespace) == []
    file_system = fsspec.filesystem("s3", **cluster_s3.options)
    assert file_system.exists(f"{url.removeprefix('s3://')}/manifest.json")


def test_a_killed_rank_is_restarted_from_the_checkpoint(
    cluster: Cluster, cluster_s3: S3, namespace: str, tmp_path: Path
) -> None:
    create_secret(cluster, cluster_s3, namespace)
    run = tiny_run("ranks", namespace, cluster_s3, put_images(cluster_s3, tmp_path / "images"))
    run["spec"]["nodes"] = {"gpus": 0, "ranks": 2, "memory": "3Gi"}
    cluster.apply(run)
    first = cluster.wait_for_status("ranks", namespace, trains(1))
    [pod] = cluster.pods("ranks", namespace)
    signal_rank(cluster, pod, "SIGKILL")
    second = cluster.wait_for_status("ranks", namespace, trains(2, first["lastCheckpoint"]["step"]))
    assert second["restarts"]["byCause"] == {"outOfMemory": 1}
    assert second["restarts"]["last"][0]["rank"] == 1
    assert second["restarts"]["last"][0]["exitCode"] == 5


def test_a_run_that_hangs_is_seen_and_restarted(
    cluster: Cluster, cluster_s3: S3, namespace: str, tmp_path: Path
) -> None:
    create_secret(cluster, cluster_s3, namespace)
    run = tiny_run("hangs", namespace, cluster_s3, put_images(cluster_s3, tmp_path / "images"))
    run["spec"]["nodes"] = {"gpus": 0, "ranks": 2, "memory": "3Gi"}
    run["spec"]["failurePolicy"] = {"stall": {"minSeconds": 10, "factor": 10}}
    # Far above what a stalled pod is given.
    run["spec"]["terminationGracePeriodSeconds"] = 600
    cluster.apply(run)
    cluster.wait_for_status("hangs", namespace, trains(1))
    [pod] = cluster.pods("hangs", namespace)
    signal_rank(cluster, pod, "SIGSTOP")
    stalled = cluster.wait_for_status(
        "hangs", namespace, lambda s: condition(s, "TrainingStalled")["status"] == "True"
    )
    assert "no step after" in stalled["message"]
    judged = cluster.wait_for_status(
        "hangs", namespace, lambda s: s["restarts"]["byCause"] == {"stalled": 1}
    )
    since = time.monotonic()
    assert judged["attempt"]["number"] == 2
    cluster.wait_for_status("hangs", namespace, lambda s: s["attempt"].get("jobUid") is not None)
    # Its devices are released although its ranks hang.
    assert time.monotonic() - since < 40
    cluster.wait_for_status("hangs", namespace, trains(2))
