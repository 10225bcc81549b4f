"""The operator itself: one of two works, and its metrics are served."""

from __future__ import annotations

import time

from cluster_runs import tiny_run
from kube import OPERATOR, Cluster, in_phase

from support.s3_server import S3


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


def test_metrics_tell_of_runs_while_they_exist(
    cluster: Cluster, cluster_s3: S3, namespace: str
) -> None:
    run = tiny_run("counted", namespace, cluster_s3, "s3://bucket/images")
    run["spec"] |= {"image": "localhost/missing:1", "imagePullPolicy": "Never"}
    cluster.apply(run)
    cluster.wait_for_status("counted", namespace, in_phase("Starting"))
    series = f'arlow_operator_run_goodput_seconds_total{{kind="productive",namespace="{namespace}"'
    text = cluster.operator_metrics()
    assert series in text
    assert 'arlow_operator_api_requests_total{code="200",verb="patch"}' in text
    assert 'arlow_operator_runs{phase="Starting"}' in text
    assert "arlow_operator_last_full_pass_age_seconds" in text
    cluster.kubectl("delete", "apt", "counted", "-n", namespace)
    deadline = time.monotonic() + 30
    while series in cluster.operator_metrics():
        assert time.monotonic() < deadline
        time.sleep(0.5)
