"""What the operator and users may do, and must not."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from chart_rbac import allows, may
from rendering import NAMESPACE, of_kind, only, render

OPERATOR = (NAMESPACE, "arlow-operator")
RUNS = "arlow.dev"

# Verbs by group and resource: all that the operator asks of the API.
NEEDED: dict[tuple[str, str], set[str]] = {
    (RUNS, "arlowpretrains"): {"get", "list", "watch"},
    (RUNS, "arlowpretrains/status"): {"get", "patch"},
    (RUNS, "arlowpretrains/finalizers"): {"update"},
    ("batch", "jobs"): {"get", "list", "watch", "create", "delete"},
    ("", "pods"): {"get", "list", "watch", "delete"},
    ("", "services"): {"get", "create"},
    ("", "configmaps"): {"get", "create"},
    ("", "persistentvolumeclaims"): {"get", "create"},
    ("", "events"): {"list", "create"},
    ("kueue.x-k8s.io", "workloads"): {"list"},
}
LEASE = {("coordination.k8s.io", "leases"): {"get", "create", "update"}}
VERBS = (
    *("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"),
    *("bind", "escalate", "impersonate", "use", "approve"),
)
RESOURCES = (
    *NEEDED,
    *LEASE,
    ("", "secrets"),
    ("", "serviceaccounts"),
    ("", "serviceaccounts/token"),
    ("", "pods/status"),
    ("", "pods/exec"),
    ("", "pods/log"),
    ("", "pods/eviction"),
    ("", "pods/proxy"),
    ("", "nodes"),
    ("", "namespaces"),
    ("apps", "deployments"),
    ("batch", "jobs/status"),
    ("batch", "cronjobs"),
    ("networking.k8s.io", "networkpolicies"),
    ("rbac.authorization.k8s.io", "roles"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("kueue.x-k8s.io", "localqueues"),
    ("*", "*"),
)


def granted(objects: Any, namespace: str) -> dict[tuple[str, str], set[str]]:
    """Returns all that the operator may do in a namespace."""
    found: dict[tuple[str, str], set[str]] = {}
    for (group, resource), verb in itertools.product(RESOURCES, VERBS):
        if may(objects, OPERATOR, verb, group, resource, namespace):
            found.setdefault((group, resource), set()).add(verb)
    return found


@pytest.mark.parametrize(
    ("watched", "namespace", "expected"),
    [
        ([], "", NEEDED),
        ([], "any", NEEDED),
        ([], NAMESPACE, NEEDED | LEASE),
        (["a", "b"], "", {}),
        (["a", "b"], "a", NEEDED),
        (["a", "b"], "b", NEEDED),
        (["a", "b"], "c", {}),
        (["a", "b"], NAMESPACE, LEASE),
        ([NAMESPACE], NAMESPACE, NEEDED | LEASE),
    ],
)
def test_the_operator_may_do_what_it_does_and_no_more(
    watched: list[str], namespace: str, expected: dict[tuple[str, str], set[str]]
) -> None:
    assert granted(render({"watchNamespaces": watched}), namespace) == expected


def test_nothing_is_granted_by_a_wildcard() -> None:
    for each in render():
        for rule in each.get("rules", ()) if each["kind"].endswith("Role") else ():
            assert "*" not in [*rule["verbs"], *rule["apiGroups"], *rule["resources"]]


def test_role_and_cluster_role_have_the_same_rules() -> None:
    roles = of_kind(render({"watchNamespaces": ["a", "b"]}), "Role")
    of_cluster = only(render(), "ClusterRole", "arlow-operator")["rules"]
    found = [e for e in roles if e["metadata"]["name"] == "arlow-operator"]
    assert [each["metadata"]["namespace"] for each in found] == ["a", "b"]
    assert all(each["rules"] == of_cluster for each in found)


ALL = {"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}
READ = {"get", "list", "watch"}


@pytest.mark.parametrize("values", [{}, {"watchNamespaces": ["a"]}])
@pytest.mark.parametrize(
    ("role", "resource", "verbs"),
    [
        ("arlow-edit", "arlowpretrains", ALL),
        ("arlow-edit", "arlowpretrains/status", set()),
        ("arlow-edit", "arlowpretrains/finalizers", set()),
        ("arlow-view", "arlowpretrains", READ),
        ("arlow-view", "arlowpretrains/status", READ),
    ],
)
def test_users_edit_or_look_at_runs_and_never_write_their_status(
    values: dict[str, Any], role: str, resource: str, verbs: set[str]
) -> None:
    kind = "Role" if values else "ClusterRole"
    rules = only(render(values), kind, role)["rules"]
    assert {verb for verb in VERBS if allows(rules, verb, RUNS, resource)} == verbs
    assert not any(allows(rules, verb, "batch", "jobs") for verb in VERBS)


def test_roles_of_users_are_part_of_those_that_every_cluster_has() -> None:
    def aggregated(name: str) -> set[str]:
        labels = only(render(), "ClusterRole", name)["metadata"]["labels"]
        prefix = "rbac.authorization.k8s.io/aggregate-to-"
        return {key.removeprefix(prefix) for key in labels if key.startswith(prefix)}

    assert aggregated("arlow-edit") == {"edit", "admin"}
    assert aggregated("arlow-view") == {"view"}
    assert aggregated("arlow-operator") == set()
