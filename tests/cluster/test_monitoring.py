"""The chart's PodMonitors and rules with the Prometheus operator: panels answered, alerts fired.

Skips where the cluster has no Prometheus of the Prometheus operator's. GPUs, fp16 and dcgm-exporter
are not in a test cluster: a pod replays dcgm-exporter's recorded page.
"""

from __future__ import annotations

import json
import time
import urllib.parse
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from cluster_runs import TinyRuns
from kube import TRAINER_IMAGE, Cluster, Refused, in_phase

from support.prometheus_server import Prometheus, unanswered_panels
from support.scraped_pages import dcgm_page

# What a run of images on a CPU without a probe does not have.
ABSENT = [
    "arlow_loss_scale",
    "arlow_gpu_",
    "model_flops_utilization_ratio",
    "arlow_probe_accuracy",
    "arlow_video_loss",
    "arlow_clip_micro_batch",
]
CRASHING = """\
#!/usr/bin/env python3
import sys, time
# So that Prometheus has seen the run before its first restart.
time.sleep(45)
sys.exit(70)
"""
STOP_RANK = """
import os, psutil, signal
for process in psutil.process_iter():
    if process.environ().get("RANK") == "1":
        os.kill(process.pid, signal.SIGSTOP)
        break
"""
VALUES = (
    "podMonitors.enabled=true",
    "podMonitors.interval=5s",
    "prometheusRule.enabled=true",
    "prometheusRule.bounds.restarts=1",
    "prometheusRule.bounds.checkpointSeconds=60",
)


class ClusterPrometheus(Prometheus):
    """A Prometheus in the cluster, asked through the API server."""

    def __init__(self, cluster: Cluster, namespace: str, pod: str) -> None:
        self._cluster = cluster
        self._path = f"/api/v1/namespaces/{namespace}/pods/{pod}:9090/proxy/api/v1"

    def _get(self, path: str, **parameters: Any) -> dict[str, Any]:
        query = urllib.parse.urlencode(parameters)
        try:
            answer = self._cluster.kubectl("get", "--raw", f"{self._path}/{path}?{query}")
        except Refused as error:
            raise AssertionError(f"{parameters}: {error}") from error
        data: dict[str, Any] = json.loads(answer)["data"]
        return data

    def wait_for_alert(self, name: str, seconds: float, **labels: str) -> datetime:
        """Waits until an alert with some labels fires, and returns when that was seen."""
        end = time.monotonic() + seconds
        wanted = {"alertname": name, **labels}
        while True:
            alerts = self._get("alerts")["alerts"]
            firing = [each["labels"] for each in alerts if each["state"] == "firing"]
            if any(wanted.items() <= each.items() for each in firing):
                return datetime.now(UTC)
            assert time.monotonic() < end, f"no {wanted}, but {firing}"
            time.sleep(2)


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> Iterator[ClusterPrometheus]:
    """A Prometheus that obeys the chart's PodMonitors and rules."""
    try:
        found = json.loads(
            cluster.kubectl("get", "prometheuses.monitoring.coreos.com", "-A", "-o", "json")
        )["items"]
    except Refused:
        pytest.skip("the cluster has no Prometheus operator (monitoring.coreos.com)")
    if not found:
        pytest.skip("the cluster has a Prometheus operator, and no Prometheus of it")
    cluster.install(*VALUES)
    try:
        metadata = found[0]["metadata"]
        pod = f"prometheus-{metadata['name']}-0"
        prometheus = ClusterPrometheus(cluster, metadata["namespace"], pod)
        prometheus.wait_for("arlow_operator_leader == 1", 180)
        yield prometheus
    finally:
        cluster.install()


def replay_dcgm(cluster: Cluster, namespace: str, pod: str) -> None:
    """Runs a pod that serves dcgm-exporter's recorded page as that of a run's pod."""
    text = dcgm_page(namespace, pod).decode()
    metadata = {"name": "dcgm-replayed", "namespace": namespace, "labels": {"app": "dcgm-replayed"}}
    restricted = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": "exporter",
        "image": TRAINER_IMAGE,
        "command": ["python3", "-m", "http.server", "9400", "--directory", "/page"],
        "ports": [{"name": "metrics", "containerPort": 9400}],
        "volumeMounts": [{"name": "page", "mountPath": "/page"}],
        "securityContext": restricted,
    }
    volume = {"name": "page", "configMap": {"name": "dcgm-replayed"}}
    endpoint = {"port": "metrics", "path": "/metrics.txt", "interval": "5s"}
    cluster.apply(
        # http.server tells the type of a file by its name, and Prometheus asks for text.
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "data": {"metrics.txt": text},
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": {"containers": [container], "volumes": [volume]},
        },
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PodMonitor",
            "metadata": metadata,
            "spec": {
                "selector": {"matchLabels": {"app": "dcgm-replayed"}},
                "podMetricsEndpoints": [endpoint],
            },
        },
    )


def test_every_panel_is_answered(
    cluster: Cluster, runs: TinyRuns, server: ClusterPrometheus
) -> None:
    runs.start("steady")
    [pod] = runs.pods("steady")
    replay_dcgm(cluster, runs.namespace, pod["metadata"]["name"])
    server.wait_for(f'arlow_checkpoints_total{{namespace="{runs.namespace}"}} > 1', 180)
    # A new PodMonitor reaches Prometheus when the kubelet next writes the Secret of its
    # configuration, which takes up to two minutes.
    server.wait_for(
        f'cluster_namespace_run_metric:DCGM_FI_DEV:avg{{namespace="{runs.namespace}"}}', 300
    )
    # A series of the operator has the namespace of the run.
    server.wait_for(f'arlow_operator_run_gpus{{namespace="{runs.namespace}", run="steady"}}', 60)
    time.sleep(60)
    missing = [
        f"{dashboard}: {each}"
        for dashboard, run in (
            ("fleet", ".*"),
            ("operator", ".*"),
            ("gpus", ".*"),
            ("run", "steady"),
        )
        for each in unanswered_panels(server, run, ABSENT, 120, dashboard, "30s")
    ]
    assert missing == []


def show(name: str, fault: str, since: datetime, fired: datetime) -> None:
    """Prints a row of the table in docs/watching.md."""
    print(f"| {fault} | `{name}` | {(fired - since).total_seconds():.0f} s |")


@pytest.mark.soak
def test_faults_of_runs_raise_their_alerts(
    runs: TinyRuns,
    server: ClusterPrometheus,
) -> None:
    runs.start(
        "hanging",
        nodes={"ranks": 2, "memory": "3Gi"},
        failurePolicy={"stall": {"minSeconds": 10, "factor": 10, "action": "Report"}},
    )
    # Restarts count from when Prometheus first sees a run, and a new PodMonitor takes two minutes.
    server.wait_for(f'arlow_operator_run_gpus{{namespace="{runs.namespace}"}}', 300)
    once = {"maxRestarts": {"withoutProgress": 2}}
    runs.start_program("crashing", CRASHING, failurePolicy=once)
    [pod] = runs.pods("hanging")
    runs.cluster.python_in(pod, STOP_RANK)
    stopped = datetime.now(UTC)

    def fired(name: str, run: str, seconds: float) -> datetime:
        return server.wait_for_alert(name, seconds, run=run, namespace=runs.namespace)

    stalled = fired("ArlowRunTrainingStalled", "hanging", 300)
    show("ArlowRunTrainingStalled", "a rank is stopped (SIGSTOP)", stopped, stalled)
    runs.wait("crashing", lambda s: s.get("restarts", {}).get("total", 0) >= 2, 600)
    again = datetime.now(UTC)
    often = fired("ArlowRunRestartingOften", "crashing", 600)
    show("ArlowRunRestartingOften", "the trainer ends with 70, the second restart", again, often)
    ended = runs.wait("crashing", in_phase("Failed"), 600)
    failed = fired("ArlowRunEndedFailed", "crashing", 300)
    fault = "the budget of restarts is spent"
    show("ArlowRunEndedFailed", fault, moment(ended["completionTime"]), failed)
    old = fired("ArlowRunCheckpointOld", "hanging", 600)
    show("ArlowRunCheckpointOld", "a rank is stopped: no checkpoint for 60 s", stopped, old)


@pytest.mark.soak
def test_a_second_operator_and_none_raise_their_alerts(
    cluster: Cluster,
    runs: TinyRuns,
    server: ClusterPrometheus,
) -> None:
    cluster.apply(runs.idle("watched"))
    runs.wait("watched", in_phase("Starting"))
    first = cluster.get("deployment", "arlow-operator", "arlow-system")
    second = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "arlow-operator-second", "namespace": "arlow-system"},
        "spec": first["spec"],
    }
    [container] = second["spec"]["template"]["spec"]["containers"]
    # Without a Lease, as one that was started by hand.
    container["env"] = [e for e in container["env"] if e["name"] != "ARLOW_OPERATOR_NAMESPACE"]
    second["spec"]["selector"]["matchLabels"]["arlow.dev/test"] = "second"
    second["spec"]["template"]["metadata"]["labels"]["arlow.dev/test"] = "second"
    cluster.apply(second)
    began = datetime.now(UTC)
    try:
        fired = server.wait_for_alert("ArlowTwoOperators", 600)
    finally:
        cluster.kubectl(
            "delete", "deployment", "arlow-operator-second", "-n", "arlow-system", "--wait"
        )
    show("ArlowTwoOperators", "a second operator is started", began, fired)
    cluster.scale_operator(0)
    began = datetime.now(UTC)
    try:
        fired = server.wait_for_alert("ArlowOperatorNotPassing", 900)
    finally:
        cluster.scale_operator(1)
    show("ArlowOperatorNotPassing", "the operator is scaled to 0", began, fired)


def moment(text: str) -> datetime:
    """A time of a status."""
    return datetime.fromisoformat(text)
