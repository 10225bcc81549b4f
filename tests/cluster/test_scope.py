"""An operator of some namespaces alone needs rights in those alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import yaml
from cluster_runs import TinyRuns, told
from kube import MANIFESTS, OPERATOR, Cluster, condition

NAME = "arlow-scoped"


def scoped_objects(namespace: str) -> list[dict[str, Any]]:
    """Returns the roles and the operator of one namespace, from those of the whole cluster."""
    rbac = "rbac.authorization.k8s.io"
    roles = list(yaml.safe_load_all((MANIFESTS / "roles.yaml").read_text("utf-8")))
    rules = next(each for each in roles if each["kind"] == "ClusterRole")["rules"]
    lease = next(each for each in roles if each["kind"] == "Role")["rules"]
    account = {"kind": "ServiceAccount", "name": NAME, "namespace": "arlow-system"}
    found: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": NAME, "namespace": "arlow-system"},
        }
    ]
    for where, what in ((namespace, rules), ("arlow-system", lease)):
        metadata = {"name": NAME, "namespace": where}
        role = {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata, "rules": what}
        binding = {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": NAME},
            "subjects": [account],
        }
        found += [role, binding]
    return found


@pytest.fixture
def scoped(cluster: Cluster, namespace: str) -> Iterator[str]:
    """A namespace that has an operator of its own, and the cluster none beside it."""
    cluster.apply(*scoped_objects(namespace))
    try:
        cluster.install(account=NAME, ARLOW_NAMESPACES=namespace)
        yield namespace
    finally:
        cluster.install()


def test_an_operator_of_one_namespace_leaves_others_alone(
    cluster: Cluster, scoped: str, runs: TinyRuns
) -> None:
    other = replace(runs, namespace=f"{scoped}-other")
    cluster.create_namespace(other.namespace)
    try:
        cluster.apply(other.idle(), runs.idle())
        status = runs.wait("run", told("ErrImageNeverPull"), 30)
        assert condition(status, "Running")["reason"] == "CannotStart"
        assert cluster.status("run", other.namespace) == {}
        # Nothing that it may not do was tried.
        time.sleep(3)
        log = cluster.kubectl("logs", *OPERATOR)
        assert "forbidden" not in log.lower(), log
    finally:
        cluster.kubectl("delete", "namespace", other.namespace, "--wait=false")
