"""An operator of some namespaces alone has rights in those alone, and needs no more."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from cluster_runs import TinyRuns, told
from kube import OPERATOR, Cluster, condition, in_phase

STEPS = 60


@pytest.fixture
def scoped(cluster: Cluster, namespace: str) -> Iterator[str]:
    """A namespace that the operator looks after, with another one, and with no others."""
    other = f"{namespace}-watched"
    cluster.create_namespace(other)
    try:
        cluster.install(f"watchNamespaces={{{namespace},{other}}}")
        yield namespace
    finally:
        cluster.install()
        cluster.kubectl("delete", "namespace", other, "--wait=false")


def test_an_operator_of_some_namespaces_is_refused_nothing(
    cluster: Cluster, scoped: str, runs: TinyRuns
) -> None:
    ours = ("-l", "app.kubernetes.io/instance=arlow", "-o", "name")
    assert cluster.kubectl("get", "clusterroles,clusterrolebindings", *ours) == ""
    elsewhere = replace(runs, namespace=f"{scoped}-other")
    cluster.create_namespace(elsewhere.namespace)
    try:
        cache = {"size": "1Gi", "storageClassName": "nowhere"}
        cluster.apply(
            elsewhere.idle(),
            runs.idle(),
            runs.idle("late", cacheVolume=cache, startDeadlineSeconds=10),
            runs.manifest("life", training={"maxStepsPerEpoch": STEPS}, ttlSecondsAfterFinished=1),
        )
        status = runs.wait("run", told("ErrImageNeverPull"), 60)
        assert condition(status, "Running")["reason"] == "CannotStart"

        # A whole life: a disruption, an end, and what was made for it is collected.
        runs.wait("life", lambda s: s.get("progress", {}).get("step", 0) > 0)
        [pod] = runs.pods("life")
        name = pod["metadata"]["name"]
        cluster.kubectl("delete", "pod", name, "-n", scoped, "--wait=false")
        runs.patch("run", suspend=True)
        done = runs.wait("life", in_phase("Succeeded", "Failed"))
        assert done["phase"] == "Succeeded", done
        assert done["restarts"]["byCause"] == {"disruption": 1}
        assert runs.wait("late", in_phase("Failed"))["attempt"]["number"] == 1
        runs.wait("run", in_phase("Suspended"))
        for each in ("run", "life", "late"):
            runs.delete(each)
        cluster.wait_until_gone("jobs", scoped)

        assert cluster.status("run", elsewhere.namespace) == {}
        # Nothing that it may not do was tried.
        time.sleep(3)
        log = cluster.kubectl("logs", *OPERATOR)
        assert "forbidden" not in log.lower(), log
        assert not re.search(r'requests_total\{code="40[13]"', cluster.operator_metrics())
    finally:
        cluster.kubectl("delete", "namespace", elsewhere.namespace, "--wait=false")
