"""What the API server refuses: mistakes, changes to what is fixed, users without rights."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cluster_runs import TinyRuns
from kube import Cluster, Refused


@pytest.fixture
def run(runs: TinyRuns) -> dict[str, Any]:
    return runs.idle()


def test_all_mistakes_of_a_manifest_are_refused_at_once(
    cluster: Cluster, run: dict[str, Any]
) -> None:
    run["spec"]["training"]["mae"] = {"maskRatio": 1.5}
    run["spec"]["nodes"]["memory"] = "2GB"
    run["spec"]["checkpoint"]["everySteps"] = -1
    with pytest.raises(Refused) as refused:
        cluster.apply(run)
    for words in (
        "spec.training.mae.maskRatio in body should be less than 1",
        "spec.nodes.memory in body should match",
        "spec.checkpoint.everySteps in body should be greater than or equal to 0",
    ):
        assert words in str(refused.value)


def test_unknown_fields_are_refused(cluster: Cluster, run: dict[str, Any]) -> None:
    run["spec"]["nodes"]["gpu"] = 8
    with pytest.raises(Refused, match=r'unknown field "spec.nodes.gpu"'):
        cluster.apply(run)


@pytest.mark.parametrize("name", ["2abc", "a.b", "a" * 53])
def test_names_that_jobs_cannot_have_are_refused(
    cluster: Cluster, run: dict[str, Any], name: str
) -> None:
    run["metadata"]["name"] = name
    with pytest.raises(Refused, match=r"metadata.name must have at most 52 characters"):
        cluster.apply(run)


def test_what_training_reads_is_fixed_once_an_attempt_was_made(
    cluster: Cluster, run: dict[str, Any], runs: TinyRuns
) -> None:
    cluster.apply(run)
    runs.wait("run", lambda status: "attempt" in status)
    with pytest.raises(Refused, match=r"name a new run"):
        runs.patch(training={"seed": 1})
    with pytest.raises(Refused, match=r"name a new run"):
        runs.patch(checkpoint={"url": "s3://bucket/elsewhere"})
    with pytest.raises(Refused, match=r"managedBy never changes"):
        runs.patch(managedBy="somebody.else/operator")
    runs.patch(checkpoint={"keepLast": 5}, suspend=True)


def test_explain_tells_defaults_and_bounds(cluster: Cluster) -> None:
    text = " ".join(cluster.kubectl("explain", "apt.spec.training.optimizer").split())
    assert "Peak learning rate. Allowed: a number, above 0" in text
    assert "Default: 0.00015." in text


USERS = {
    "runs-alone": [("arlow.dev", "arlowpretrains")],
    "runs-and-jobs": [("arlow.dev", "arlowpretrains"), ("batch", "jobs")],
}


def test_only_who_may_create_jobs_may_create_and_change_runs(
    cluster: Cluster, run: dict[str, Any], namespace: str
) -> None:
    for user, rights in USERS.items():
        role = {"name": user, "namespace": namespace}
        rules = [{"apiGroups": [g], "resources": [r], "verbs": ["*"]} for g, r in rights]
        rbac = "rbac.authorization.k8s.io"
        cluster.apply(
            {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": role, "rules": rules},
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "RoleBinding",
                "metadata": role,
                "roleRef": {"apiGroup": rbac, "kind": "Role", "name": user},
                "subjects": [{"apiGroup": rbac, "kind": "User", "name": user}],
            },
        )
    cluster.kubectl(
        "create", "rolebinding", "editor", "--clusterrole=edit", "--user=editor", "-n", namespace
    )
    text = json.dumps(run)
    words = f"runs-alone may not create Jobs in the namespace {namespace}"
    for arguments in (("create",), ("apply",), ("apply", "--server-side")):
        with pytest.raises(Refused, match=words):
            cluster.kubectl(*arguments, "--as=runs-alone", "-f", "-", stdin=text)
    cluster.kubectl("apply", "--as=runs-and-jobs", "-f", "-", stdin=text)
    target = ("apt", "run", "-n", namespace)
    for arguments in (
        ("patch", *target, "--type=merge", "-p", '{"spec":{"suspend":true}}'),
        ("label", *target, "kueue.x-k8s.io/queue-name=best"),
        ("annotate", *target, "arlow.dev/retry=2026-01-01T00:00:00Z"),
        ("annotate", *target, "arlow.dev/adopt=true"),
    ):
        with pytest.raises(Refused, match=words):
            cluster.kubectl(*arguments, "--as=runs-alone")
    cluster.kubectl("annotate", *target, "note=hello", "--as=runs-alone")
    cluster.kubectl("label", *target, "team=vision", "--as=editor")
    cluster.kubectl("delete", *target, "--as=runs-alone")
