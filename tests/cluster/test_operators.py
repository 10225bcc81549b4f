"""The operator itself: one of two works, and its metrics are served."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import pytest
from cluster_runs import TinyRuns, goes_on, restarted
from kube import OPERATOR, Cluster, in_phase


def test_only_one_of_two_operators_works(cluster: Cluster) -> None:
    pods = ("pods", "arlow-system", "app.kubernetes.io/name=arlow-operator")
    [first] = cluster.items(*pods)
    holder = first["metadata"]["name"]
    # One that was replaced just now gives it back as it ends.
    deadline = time.monotonic() + 20
    while cluster.lease_holder() != holder:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    try:
        cluster.scale_operator(2)
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


def test_metrics_tell_of_runs_while_they_exist(cluster: Cluster, runs: TinyRuns) -> None:
    cluster.apply(runs.idle("counted"))
    runs.wait("counted", in_phase("Starting"))
    namespace = runs.namespace
    series = f'arlow_operator_run_goodput_seconds{{kind="productive",namespace="{namespace}"'
    text = cluster.operator_metrics()
    assert series in text
    assert 'arlow_operator_api_requests_total{code="200",verb="patch"}' in text
    assert 'arlow_operator_runs{phase="Starting"}' in text
    # The definition was installed with this operator.
    assert "arlow_operator_definition_differing_fields 0.0" in text
    assert re.search(r'^arlow_operator_watch_events_total{resource="runs"} [1-9]', text, re.M)
    assert "arlow_operator_last_full_pass_age_seconds" in text
    runs.delete("counted")
    deadline = time.monotonic() + 30
    while series in cluster.operator_metrics():
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.mark.soak
def test_an_operator_that_renders_otherwise_touches_no_live_attempt(
    cluster: Cluster, runs: TinyRuns
) -> None:
    before = runs.start()
    [pod] = runs.pods()
    try:
        cluster.install("image.trainer.repository=localhost/another", "runs.allowCpu=false")
        seen = runs.wait("run", goes_on(before))
        [still] = runs.pods()
        assert still["metadata"]["uid"] == pod["metadata"]["uid"]
        name = pod["metadata"]["name"]
        cluster.kubectl("delete", "pod", name, "-n", runs.namespace, "--wait=false")
        after = runs.wait("run", restarted(seen))
        # As the new one renders it, of the image that the run began with.
        assert after["attempt"]["image"] == before["attempt"]["image"]
        [old], [new] = pod["spec"]["containers"], runs.pods()[0]["spec"]["containers"]
        assert new["image"] == old["image"]
        assert "ARLOW_ALLOW_CPU" in {each["name"] for each in old["env"]}
        assert "ARLOW_ALLOW_CPU" not in {each["name"] for each in new["env"]}
    finally:
        cluster.install()


PEERINGS = "clusterkopfpeerings.kopf.dev"


@pytest.mark.soak
def test_neither_a_proxy_nor_a_stranger_of_higher_priority_stops_it(
    cluster: Cluster, runs: TinyRuns
) -> None:
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": anything},
    }
    names = {"kind": "ClusterKopfPeering", "plural": "clusterkopfpeerings"}
    stranger = {"priority": 1000, "lastseen": datetime.now(UTC).isoformat(), "lifetime": 600}
    cluster.apply(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": PEERINGS},
            "spec": {
                "group": "kopf.dev",
                "scope": "Cluster",
                "names": names,
                "versions": [version],
            },
        }
    )
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "https_proxy")
    try:
        cluster.kubectl("wait", "--for=condition=Established", f"crd/{PEERINGS}", "--timeout=60s")
        cluster.apply(
            {
                "apiVersion": "kopf.dev/v1",
                "kind": "ClusterKopfPeering",
                "metadata": {"name": "default"},
                "status": {"stranger": stranger},
            }
        )
        nowhere = (f"{each}=http://127.0.0.1:9" for each in proxies)
        cluster.kubectl("set", "env", *OPERATOR, *nowhere)
        cluster.wait_for_operator()
        runs.start()
    finally:
        cluster.kubectl("delete", "crd", PEERINGS, "--wait=false")
        cluster.kubectl("set", "env", *OPERATOR, *(f"{each}-" for each in proxies))
        cluster.wait_for_operator()


@pytest.mark.soak
def test_runs_that_are_gone_leave_no_series_and_no_memory(cluster: Cluster, runs: TinyRuns) -> None:
    def left() -> tuple[int, float]:
        text = cluster.operator_metrics()
        [memory] = re.findall(r"^process_resident_memory_bytes (\S+)", text, re.M)
        return text.count(f'namespace="{runs.namespace}"'), float(memory) / 2**20

    seen = []
    for _ in range(3):
        manifests = [runs.idle(f"many-{number}", suspend=True) for number in range(500)]
        cluster.apply(*manifests)
        selector = ("--field-selector", "status.phase=Suspended", "-o", "name")
        deadline = time.monotonic() + 300
        while True:
            found = cluster.kubectl("get", "apt", "-n", runs.namespace, *selector)
            if len(found.splitlines()) == 500:
                break
            assert time.monotonic() < deadline
            time.sleep(2)
        assert left()[0] >= 500
        cluster.kubectl("delete", "apt", "--all", "-n", runs.namespace, "--wait=false")
        deadline = time.monotonic() + 120
        while left()[0]:
            assert time.monotonic() < deadline
            time.sleep(2)
        seen.append(left()[1])
    print(f"memory after each 500 runs: {', '.join(f'{each:.0f}' for each in seen)} MiB")
    assert seen[2] - seen[0] < 10
