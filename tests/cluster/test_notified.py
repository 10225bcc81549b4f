"""A webhook is told once of a run that fails, also by an operator that starts anew."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from cluster_runs import TinyRuns
from kube import Cluster, address_towards, in_phase

BREAKS = """\
#!/usr/bin/env python3
raise SystemExit(9)
"""
TOKEN = "T0KEN-that-nobody-may-read"


@pytest.fixture
def told(cluster: Cluster) -> Iterator[list[dict[str, Any]]]:
    """What a webhook on this machine is told by the operator of the cluster."""
    bodies: list[dict[str, Any]] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    host = address_towards(cluster.node_address())
    server = ThreadingHTTPServer((host, 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://{host}:{server.server_address[1]}/services/{TOKEN}"
    metadata = {"name": "chat", "namespace": "arlow-system"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}
    cluster.apply(secret | {"stringData": {"url": url}})
    try:
        cluster.install("notifications.webhookSecret.name=chat")
        yield bodies
    finally:
        cluster.install()
        cluster.kubectl("delete", "secret", "chat", "-n", "arlow-system")
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_failure_is_told_once(
    cluster: Cluster, runs: TinyRuns, told: list[dict[str, Any]]
) -> None:
    def about_it() -> list[dict[str, Any]]:
        return [each for each in told if each["namespace"] == runs.namespace]

    def recorded() -> int:
        events = cluster.items("events", runs.namespace)
        return [each["reason"] for each in events].count("Notified")

    runs.start_program("breaks", BREAKS, failurePolicy={"maxRestarts": {"unknown": 0}})
    runs.wait("breaks", in_phase("Failed"))
    deadline = time.monotonic() + 30
    while not recorded():
        assert time.monotonic() < deadline, told
        time.sleep(0.5)
    [found] = about_it()
    assert (found["event"], found["run"], found["reason"]) == ("Failed", "breaks", "BudgetSpent")
    assert found["text"].startswith(f"Failed: ArlowPretrain {runs.namespace}/breaks: ended once")

    assert 'arlow_operator_notifications_total{result="delivered"}' in cluster.operator_metrics()
    log = cluster.kubectl("logs", "-n", "arlow-system", "deployment/arlow-operator")
    assert TOKEN not in log
    cluster.restart_operator()
    time.sleep(10)
    assert (len(about_it()), recorded()) == (1, 1)
