"""Two operators: one works, and the other takes over when it is gone."""

from __future__ import annotations

import time

from kube import OPERATOR, Cluster


def test_only_one_of_two_operators_works(cluster: Cluster) -> None:
    pods = ("pods", "arlow-system", "app.kubernetes.io/name=arlow-operator")
    [first] = cluster.items(*pods)
    holder = first["metadata"]["name"]
    assert cluster.lease_holder() == holder
    try:
        cluster.kubectl("scale", *OPERATOR, "--replicas=2")
        cluster.kubectl("rollout", "status", *OPERATOR, "--timeout=120s")
        others = [pod["metadata"]["name"] for pod in cluster.items(*pods)]
        others.remove(holder)
        cluster.wait_for_log(others[0], "another operator holds the Lease")
        # It gives the Lease back, and one that waits takes it at once.
        cluster.kubectl("delete", "pod", holder, "-n", "arlow-system")
        deadline = time.monotonic() + 15
        while (next_holder := cluster.lease_holder()) in (holder, ""):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        cluster.wait_for_log(next_holder, "looks after the runs")
    finally:
        cluster.kubectl("scale", *OPERATOR, "--replicas=1")
