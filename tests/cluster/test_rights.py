"""What the API server says that the operator and users may do."""

from __future__ import annotations

import re

import pytest
from kube import Cluster

READ = {"get", "list", "watch"}
CHANGE = {"create", "update", "patch", "delete", "deletecollection"}
OPERATOR = {
    "arlowpretrains.arlow.dev": READ,
    "arlowpretrains.arlow.dev/status": {"get", "patch"},
    "arlowpretrains.arlow.dev/finalizers": {"update"},
    "jobs.batch": READ | {"create", "delete"},
    "pods": READ | {"delete"},
    "services": {"get", "create"},
    "configmaps": {"get", "create"},
    "persistentvolumeclaims": {"get", "create"},
    "events": {"list", "create"},
    "workloads.kueue.x-k8s.io": {"list"},
}
LEASE = {"leases.coordination.k8s.io": {"get", "create", "update"}}
ACCOUNT = "system:serviceaccount:arlow-system:arlow-operator"


def allowed(cluster: Cluster, user: str, namespace: str) -> dict[str, set[str]]:
    """Returns the verbs that a user has in a namespace, by resource, without everybody's."""
    found: dict[str, set[str]] = {}
    command = ("auth", "can-i", "--list", "--no-headers", f"--as={user}", "-n", namespace)
    for line in cluster.kubectl(*command).splitlines():
        resource, verbs = re.fullmatch(r"(\S*) +\[.*?\] +\[.*?\] +\[(.*?)\]", line).groups()
        if resource and not resource.startswith("self"):
            found.setdefault(resource, set()).update(verbs.split())
    return found


def test_the_operator_may_do_what_it_does_and_nothing_else(
    cluster: Cluster, namespace: str
) -> None:
    assert allowed(cluster, ACCOUNT, namespace) == OPERATOR
    assert allowed(cluster, ACCOUNT, "arlow-system") == OPERATOR | LEASE


@pytest.mark.parametrize(
    ("role", "on_runs", "on_status"),
    [
        ("view", READ, READ),
        ("edit", READ | CHANGE, READ),
        ("admin", READ | CHANGE, READ),
        ("", set(), set()),
    ],
)
def test_roles_of_every_cluster_have_their_part_in_runs(
    cluster: Cluster, namespace: str, role: str, on_runs: set[str], on_status: set[str]
) -> None:
    user = f"{role}-user"
    if role:
        who = (f"--clusterrole={role}", f"--user={user}")
        cluster.kubectl("create", "rolebinding", user, *who, "-n", namespace)
    found = allowed(cluster, user, namespace)
    of_runs = {key: verbs for key, verbs in found.items() if "arlow.dev" in key}
    expected = {
        "arlowpretrains.arlow.dev": on_runs,
        "arlowpretrains.arlow.dev/status": on_status,
    }
    assert of_runs == {key: verbs for key, verbs in expected.items() if verbs}
    # Their rights end with the namespace.
    assert allowed(cluster, user, "arlow-system") == {}
