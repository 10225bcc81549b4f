"""A run that is deleted and created anew, at once, is a new run."""

from __future__ import annotations

from typing import Any

import pytest
from cluster_runs import TinyRuns, goes_on, trains
from kube import Cluster, in_phase


@pytest.mark.parametrize("times", [3, pytest.param(10, marks=pytest.mark.soak)])
def test_what_was_made_for_an_earlier_run_of_the_name_does_not_touch_a_new_one(
    cluster: Cluster, runs: TinyRuns, times: int
) -> None:
    for number in range(times):
        # Each is another, so that one which trained by an earlier one's file would be seen.
        training = {"maxStepsPerEpoch": 1000 + number}
        run = runs.manifest("anew", training=training, terminationGracePeriodSeconds=5)
        cluster.apply(run)
        if number + 1 < times:
            runs.wait("anew", lambda s: "attempt" in s)
            runs.delete("anew")
    last = cluster.get("apt", "anew", runs.namespace)
    status = runs.wait("anew", trains(1))
    assert status["restarts"]["total"] == 0
    assert status["progress"]["totalSteps"] % 1000 == (times - 1) * run_epochs(status)
    [job] = cluster.items("jobs", runs.namespace)
    assert job["metadata"]["ownerReferences"][0]["uid"] == last["metadata"]["uid"]


def run_epochs(status: dict[str, Any]) -> int:
    return int(status["progress"]["totalSteps"]) // 1000


@pytest.mark.soak
def test_an_object_that_is_restored_without_its_status_goes_on_from_its_checkpoint(
    cluster: Cluster, runs: TinyRuns
) -> None:
    before = runs.start()
    runs.delete()
    # As from a backup, at once: the old pod still saves.
    cluster.apply(runs.manifest())
    after = runs.wait("run", goes_on(before))
    assert after["attempt"]["number"] == 1
    assert after["restarts"]["total"] == 0


@pytest.mark.soak
def test_a_run_of_the_same_name_and_url_in_another_namespace_is_refused(
    cluster: Cluster, runs: TinyRuns
) -> None:
    other = TinyRuns(cluster, f"{runs.namespace}-other", runs.s3, runs.images)
    cluster.create_namespace(other.namespace)
    try:
        other.create_secret()
        before = runs.start()
        run = runs.manifest()
        run["metadata"]["namespace"] = other.namespace
        cluster.apply(run)
        # While the first one writes to the folder, its lease keeps others out.
        other.wait("run", lambda s: s.get("restarts", {}).get("byCause") == {"store": 1})
        runs.patch(suspend=True)
        refused = other.wait("run", in_phase("Failed", "Running"))
        assert refused["phase"] == "Failed"
        assert f"the run 'run' of the namespace '{runs.namespace}'" in refused["message"]
        assert "Give this run another metadata.name or spec.checkpoint.url" in refused["message"]
        runs.patch(suspend=False)
        after = runs.wait("run", goes_on(before))
        assert after["restarts"]["total"] == 0
    finally:
        cluster.kubectl("delete", "namespace", other.namespace, "--wait=false")
