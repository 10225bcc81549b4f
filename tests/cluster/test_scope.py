"""An operator of some namespaces alone needs rights in those alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_runs import tiny_run
from kube import OPERATOR, Cluster, condition

from support.s3_server import S3

MANIFESTS = Path(__file__).parents[2] / "manifests" / "operator"
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
        cluster.install(MANIFESTS, account=NAME, namespaces=namespace)
        yield namespace
    finally:
        cluster.install(MANIFESTS)


def test_an_operator_of_one_namespace_leaves_others_alone(
    cluster: Cluster, cluster_s3: S3, scoped: str
) -> None:
    elsewhere = f"{scoped}-other"
    cluster.create_namespace(elsewhere)
    try:
        for namespace in (elsewhere, scoped):
            run = tiny_run("run", namespace, cluster_s3, "s3://bucket/images")
            run["spec"] |= {"image": "localhost/missing:1", "imagePullPolicy": "Never"}
            del run["spec"]["checkpoint"]["secretRef"]
            cluster.apply(run)
        status = cluster.wait_for_status(
            "run", scoped, lambda s: "ErrImageNeverPull" in s.get("message", ""), 30
        )
        assert condition(status, "Running")["reason"] == "CannotStart"
        assert cluster.status("run", elsewhere) == {}
        # Nothing that it may not do was tried.
        time.sleep(3)
        log = cluster.kubectl("logs", *OPERATOR)
        assert "forbidden" not in log.lower(), log
    finally:
        cluster.kubectl("delete", "namespace", elsewhere, "--wait=false")
