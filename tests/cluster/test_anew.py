"""A run that is deleted and created anew, at once, is a new run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cluster_runs import create_secret, put_images, tiny_run, trains
from kube import Cluster

from support.s3_server import S3


@pytest.mark.parametrize("times", [3, pytest.param(10, marks=pytest.mark.soak)])
def test_what_was_made_for_an_earlier_run_of_the_name_does_not_touch_a_new_one(
    cluster: Cluster, cluster_s3: S3, namespace: str, tmp_path: Path, times: int
) -> None:
    create_secret(cluster, cluster_s3, namespace)
    images = put_images(cluster_s3, tmp_path / "images")
    for number in range(times):
        run = tiny_run("anew", namespace, cluster_s3, images)
        # Each is another, so that one which trained by an earlier one's file would be seen.
        run["spec"]["training"]["maxStepsPerEpoch"] = 1000 + number
        run["spec"]["terminationGracePeriodSeconds"] = 5
        cluster.apply(run)
        if number + 1 < times:
            cluster.wait_for_status("anew", namespace, lambda s: "attempt" in s)
            cluster.kubectl("delete", "apt", "anew", "-n", namespace)
    last = cluster.get("apt", "anew", namespace)
    status = cluster.wait_for_status("anew", namespace, trains(1))
    assert status["restarts"]["total"] == 0
    assert status["progress"]["totalSteps"] % 1000 == (times - 1) * run_epochs(status)
    [job] = cluster.items("jobs", namespace)
    assert job["metadata"]["ownerReferences"][0]["uid"] == last["metadata"]["uid"]


def run_epochs(status: dict[str, Any]) -> int:
    return int(status["progress"]["totalSteps"]) // 1000
