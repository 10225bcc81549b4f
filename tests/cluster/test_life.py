"""What befalls a run, and that it goes on from its newest checkpoint."""

from __future__ import annotations

import time

import fsspec
import pytest
from cluster_runs import TinyRuns, goes_on, trains
from kube import Cluster, Refused, condition


def test_a_run_lives_through_disruptions(cluster: Cluster, runs: TinyRuns) -> None:
    namespace = runs.namespace
    first = runs.start("tiny")
    step = first["lastCheckpoint"]["step"]

    # A pod is deleted: a checkpoint is saved, and the next attempt goes on from it.
    [pod] = runs.pods("tiny")
    cluster.kubectl("delete", "pod", pod["metadata"]["name"], "-n", namespace, "--wait=false")
    second = runs.wait("tiny", trains(2, step))
    assert second["restarts"]["byCause"] == {"disruption": 1}
    assert second["restarts"]["spent"] == {}
    step = second["lastCheckpoint"]["step"]

    # Suspended: nothing runs, and the checkpoint is kept.
    runs.patch("tiny", suspend=True)
    suspended = runs.wait("tiny", lambda s: condition(s, "Suspended")["status"] == "True")
    # The last sign of a pod that has ended stays for a second.
    assert all(pod["status"]["phase"] == "Failed" for pod in runs.pods("tiny"))
    assert cluster.items("jobs", namespace) == []
    assert suspended["lastCheckpoint"]["step"] >= step
    step = suspended["lastCheckpoint"]["step"]
    runs.patch("tiny", suspend=False)
    runs.wait("tiny", trains(3, step))

    # Its status cannot be removed; another operator takes over, and the pod runs on.
    [pod] = runs.pods("tiny")
    target = ("apt", "tiny", "-n", namespace, "--subresource=status")
    with pytest.raises(Refused, match=r"the number of attempts never falls"):
        cluster.kubectl("patch", *target, "--type=merge", "-p", '{"status":null}')
    cluster.restart_operator()
    seen = runs.wait("tiny", trains(3, step))
    [still] = runs.pods("tiny")
    assert still["metadata"]["uid"] == pod["metadata"]["uid"]
    step = seen["lastCheckpoint"]["step"]

    # Its Job is deleted by hand, and the run goes on as well.
    cluster.kubectl("delete", "job", "tiny-3", "-n", namespace, "--wait=false")
    fourth = runs.wait("tiny", trains(4, step))
    assert fourth["restarts"]["total"] == 2

    # Deleted: it stops within its grace, all that was made for it goes, the checkpoints stay.
    url = fourth["lastCheckpoint"]["url"]
    runs.delete("tiny")
    cluster.wait_until_gone("pods", namespace)
    assert cluster.items("services", namespace) == []
    file_system = fsspec.filesystem("s3", **runs.s3.options)
    assert file_system.exists(f"{url.removeprefix('s3://')}/manifest.json")


def signal_rank(runs: TinyRuns, name: str) -> None:
    """Sends a signal to rank 1, which is no first process: from inside those take none."""
    [pod] = runs.pods("ranks")
    code = (
        f"import os, psutil, signal; os.kill(next(p.pid for p in psutil.process_iter()"
        f" if p.environ().get('RANK') == '1'), signal.{name})"
    )
    runs.cluster.python_in(pod, code)


def test_a_rank_is_killed_and_another_hangs(runs: TinyRuns) -> None:
    first = runs.start(
        "ranks",
        nodes={"ranks": 2, "memory": "3Gi"},
        failurePolicy={"stall": {"minSeconds": 10, "factor": 10}},
        # Far above what a stalled pod is given.
        terminationGracePeriodSeconds=600,
    )
    signal_rank(runs, "SIGKILL")
    second = runs.wait("ranks", trains(2, first["lastCheckpoint"]["step"]))
    assert second["restarts"]["byCause"] == {"outOfMemory": 1}
    assert second["restarts"]["last"][0]["rank"] == 1
    assert second["restarts"]["last"][0]["exitCode"] == 5

    signal_rank(runs, "SIGSTOP")
    stalled = runs.wait("ranks", lambda s: condition(s, "TrainingStalled")["status"] == "True")
    assert "no step after" in stalled["message"]
    judged = runs.wait("ranks", lambda s: s["restarts"]["byCause"].get("stalled") == 1)
    since = time.monotonic()
    assert judged["attempt"]["number"] == 3
    runs.wait("ranks", lambda s: s["attempt"].get("jobUid") is not None)
    # Its devices are released although its ranks hang.
    assert time.monotonic() - since < 40
    runs.wait("ranks", goes_on(judged))
