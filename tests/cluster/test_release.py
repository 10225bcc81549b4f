"""What Helm and GitOps tools do with the chart's release while runs are in the cluster."""

from __future__ import annotations

import re
import time

import fsspec
import pytest
from cluster_runs import TinyRuns, goes_on
from kube import RELEASE, Cluster, Refused, in_phase

CRD = "crd/arlowpretrains.arlow.dev"
RELIST_S = 60


def newest_checkpoint(runs: TinyRuns, url: str) -> int:
    """Returns the step of the newest checkpoint in a run's folder."""
    folder = url.rpartition("/")[0].removeprefix("s3://")
    found = fsspec.filesystem("s3", **runs.s3.options, use_listings_cache=False).ls(folder)
    return max(int(step) for each in found for step in re.findall(r"checkpoint-(\d+)", each))


def uid(cluster: Cluster, name: str) -> str:
    """Returns the uid of an object of the cluster."""
    return cluster.kubectl("get", name, "-o", "jsonpath={.metadata.uid}")


def test_a_run_goes_on_through_upgrade_rollback_and_uninstall(
    cluster: Cluster, runs: TinyRuns
) -> None:
    runs.start()
    [pod] = runs.pods()
    definition = uid(cluster, CRD)
    operators = [cluster.lease_holder()]

    def assert_goes_on() -> None:
        """Waits until another operator tells of a new checkpoint of the same pod."""
        # The one before is gone: what changes from now on is of the new one.
        after = runs.wait("run", goes_on(runs.status()), 120)
        operators.append(cluster.lease_holder())
        assert operators[-1] not in ("", *operators[:-1])
        [still] = runs.pods()
        assert still["metadata"]["uid"] == pod["metadata"]["uid"]
        assert (after["attempt"]["number"], after["restarts"]["total"]) == (1, 0)
        assert uid(cluster, CRD) == definition

    try:
        cluster.install("progressSeconds=2")
        assert_goes_on()

        cluster.helm("rollback", *RELEASE, "--wait")
        assert_goes_on()

        # The definition is no more the release's, and stays with all runs.
        cluster.install("crds.enabled=false", "progressSeconds=2")
        assert "kind: CustomResourceDefinition" not in cluster.helm("get", "manifest", *RELEASE)
        assert_goes_on()

        cluster.helm("uninstall", *RELEASE, "--wait")
        cluster.wait_until_gone("pods", "arlow-system")
        url = runs.status()["lastCheckpoint"]["url"]
        step = newest_checkpoint(runs, url)
        deadline = time.monotonic() + 60
        while newest_checkpoint(runs, url) <= step:
            assert time.monotonic() < deadline, "nothing is saved while there is no operator"
            time.sleep(1)
    finally:
        cluster.install()
    assert_goes_on()
    # The new release took the definition over.
    assert cluster.differences(cluster.rendered()) == ""


def test_helm_test_finds_the_installation_well(cluster: Cluster) -> None:
    assert re.search(r"Phase: +Succeeded", cluster.helm("test", *RELEASE, "--timeout", "60s"))


def test_nothing_differs_from_what_was_rendered_while_the_operator_works(
    cluster: Cluster, runs: TinyRuns
) -> None:
    cluster.apply(runs.idle())
    runs.wait("run", in_phase("Starting"))
    deadline = time.monotonic() + 2 * RELIST_S
    while passes(cluster) < 2:
        assert time.monotonic() < deadline
        time.sleep(2)
    rendered = cluster.rendered()
    assert cluster.differences(rendered) == ""
    # It would tell.
    with pytest.raises(Refused, match=r"conflict with .*: \.spec\.replicas"):
        cluster.differences(rendered.replace("replicas: 1", "replicas: 2"))


def passes(cluster: Cluster) -> int:
    """Returns how many full passes the operator has made at least: one each minute."""
    text = cluster.operator_metrics()
    [age] = re.findall(r"^arlow_operator_last_full_pass_age_seconds (\S+)", text, re.M)
    [start] = re.findall(r"^process_start_time_seconds (\S+)", text, re.M)
    # The first is made within seconds.
    return 1 + round((time.time() - float(start) - float(age)) / RELIST_S)
