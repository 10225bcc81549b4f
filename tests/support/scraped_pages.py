"""Pages that a Prometheus scrapes in tests: the operator's own, and dcgm-exporter's replayed."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prometheus_client import start_http_server

from arlow_operator.metrics import Metrics
from arlow_operator.status import (
    AttemptStatus,
    CheckpointStatus,
    Condition,
    GoodputStatus,
    ProgressStatus,
    RestartsStatus,
    Status,
)

EXPOSITION = Path(__file__).parent / "dcgm_exposition.txt"
POD = "quick-2-0-x7k2p"
NODE = "node-a"

NOW = datetime.now(UTC)
ATTEMPT = AttemptStatus(
    number=2, job_name="quick-2", job_uid="uid", start_time=NOW - timedelta(hours=2)
)
TRAINING = Status(
    phase="Running",
    start_time=NOW - timedelta(hours=9),
    attempt=ATTEMPT,
    progress=ProgressStatus(
        step=5000,
        total_steps=100_000,
        percent=5.0,
        loss=0.61,
        images_per_second=812.5,
        mfu=0.31,
        eta_seconds=86_400,
        last_update_time=NOW,
    ),
    last_checkpoint=CheckpointStatus(
        url="s3://runs/quick/checkpoint-4800", step=4800, time=NOW - timedelta(minutes=7)
    ),
    restarts=RestartsStatus(total=1, by_cause={"crash": 1}),
    goodput=GoodputStatus(
        productive_seconds=30_000, lost_seconds=600, queued_seconds=1200, starting_seconds=300
    ),
)
STALLED = Condition(
    type="TrainingStalled",
    status="True",
    reason="NoStep",
    last_transition_time=NOW,
    observed_generation=1,
)
STATUSES: dict[tuple[str, str], Status] = {
    ("team", "quick"): TRAINING,
    ("team", "held"): TRAINING.model_copy(update={"conditions": [STALLED]}),
    ("team", "waiting"): Status(phase="Queued", goodput=GoodputStatus(queued_seconds=900)),
    ("other", "ended"): TRAINING.model_copy(
        update={"phase": "Succeeded", "completion_time": NOW - timedelta(hours=1)}
    ),
    ("other", "broken"): Status(
        phase="Failed", start_time=NOW - timedelta(hours=3), completion_time=NOW
    ),
    ("other", "new"): Status(),
}
"""A run in each situation that the dashboards tell apart."""


def operator_metrics() -> Metrics:
    """Returns the metrics of an operator that leads and looks after runs."""
    metrics = Metrics()
    metrics.lead(lambda: 3, lambda: 12.0)
    metrics.compared(0)
    metrics.passed(0.04, failed=False)
    metrics.requested("list", 200)
    for key, status in STATUSES.items():
        metrics.runs.tell(key, status, gpus=8)
    return metrics


@contextmanager
def working_operator(metrics: Metrics, port: int) -> Iterator[None]:
    """Serves an operator's page, whose counters count."""
    server, thread = start_http_server(port, addr="127.0.0.1", registry=metrics.registry)
    done = threading.Event()

    def work() -> None:
        while not done.wait(0.05):
            metrics.passed(0.04, failed=False)
            metrics.requested("get", 200)
            metrics.requested("patch", 409)
            metrics.saw("runs")

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        done.set()
        worker.join()
        server.shutdown()
        server.server_close()
        thread.join()


def dcgm_page(namespace: str = "team", pod: str = POD) -> bytes:
    """Returns the recorded page, as that of two GPUs of a run's pod."""
    lines = []
    for line in EXPOSITION.read_text("utf-8").splitlines():
        if line.startswith("#"):
            lines.append(line)
            continue
        for gpu in (0, 1):
            labels = (
                f'gpu="{gpu}",UUID="GPU-{gpu}",device="nvidia{gpu}",'
                'modelName="NVIDIA RTX 4000 Ada Generation",'
                f'Hostname="{NODE}",DCGM_FI_DRIVER_VERSION="580.95.05",container="trainer",'
                f'namespace="{namespace}",pod="{pod}",pod_uid=""'
            )
            lines.append(line.replace("@", labels))
    return ("\n".join(lines) + "\n").encode()


@contextmanager
def replayed(page: bytes, port: int) -> Iterator[None]:
    """Serves a recorded page."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
