"""Two operators: one works, and the other takes over when it is gone."""

from __future__ import annotations

from kube import OPERATOR, Cluster


def test_only_one_of_two_operators_works(cluster: Cluster) -> None:
    pods = ("pods", "arlow-system", "app.kubernetes.io/name=arlow-operator")
    [first] = cluster.items(*pods)
    holder = cluster.get("lease", "arlow-operator", "arlow-system")["spec"]["holderIdentity"]
    assert holder == first["metadata"]["name"]
    try:
        cluster.kubectl("scale", *OPERATOR, "--replicas=2")
        cluster.kubectl("rollout", "status", *OPERATOR, "--timeout=120s")
        second = next(
            each["metadata"]["name"]
            for each in cluster.items(*pods)
            if each["metadata"]["name"] != holder
        )
        cluster.wait_for_log(second, "another operator holds the Lease")
        cluster.kubectl("delete", "pod", holder, "-n", "arlow-system")
        cluster.wait_for_log(second, "looks after the runs")
    finally:
        cluster.kubectl("scale", *OPERATOR, "--replicas=1")
