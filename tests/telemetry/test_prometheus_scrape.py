"""A real Prometheus scrapes a process that reports a run: panels have data, alerts fire."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

from child_process import child_process

from support.prometheus_server import needs_prometheus, prometheus, unanswered_panels

ALERTS = Path(__file__).parents[2] / "charts" / "alerts" / "trainer.yaml"

RUN = """
import math, sys, time
from arlow_trainer.config import load_run
from arlow_trainer.telemetry import *

port, faulty = int(sys.argv[1]), sys.argv[2] == "faulty"
run = load_run("tiny", ["metadata.name=quick"])
telemetry = Telemetry(run, 0, 2, TelemetryOptions(port=port, peak_flops=1e12))
telemetry.phase("training")
telemetry.probe(0, "knn", 0.5)
phases = {"data": 0.005, "forward": 0.015, "backward": 0.02, "optimizer": 0.005, "checkpoint": 0.0}
for step in range(1, 10_000):
    time.sleep(0.05)
    broken = faulty and step > 200
    # Ten steps in a row that are lost end a run, and never reach a read-out.
    if broken and step < 211:
        telemetry.lost_step(f"step {step} was skipped: numbers were not finite in the loss")
    largest = 50.0 if broken else 1.0
    readout = {
        "loss": 1 / step, "image_loss": 0.4, "video_loss": 0.6, "learning_rate": 1e-4,
        "grad_norm": 0.8, "grad_norm_max": largest, "loss_scale": 65536.0,
        "overflows": step // 100, "max_attention_logit": 12.0, "rank_skew_seconds": 0.002,
        "gpu_memory_bytes": 2e9, "gpu_memory_reserved_bytes": 3e9, "gpu_allocator_retries": 1,
        "image_micro_batch": 96, "clip_micro_batch": 12, "max_residual_activation": 40.0,
    }
    report = StepReport(
        step, 10_000, 0.05, 24, 8, 2000, 1e9, phases, readout if step % 5 == 0 else None
    )
    telemetry.step(report)
    if step % 20 == 0 and not broken:
        telemetry.checkpoint(CheckpointReport(step, f"runs/quick/checkpoint-{step}", 1, 9, 0.1))
    if broken and step % 20 == 0:
        telemetry.checkpoint_failed(step, "the store refused")
"""


def reporting_process(port: int, kind: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", RUN, str(port), kind]
    return child_process(command, 120, stdout=subprocess.DEVNULL)


@needs_prometheus
def test_every_panel_has_data(tmp_path: Path, free_port: int) -> None:
    with (
        reporting_process(free_port, "sound") as process,
        prometheus(tmp_path, [f"127.0.0.1:{free_port}"], [ALERTS]) as server,
    ):
        try:
            server.wait_for('rate(arlow_checkpoints_total{run="quick"}[4s]) > 0')
            time.sleep(4)
            # What the operator tells of a run has a test of its own, in tests/monitoring.
            assert unanswered_panels(server, "quick", absent=["arlow_operator_"]) == []
            assert server.firing() == {}
        finally:
            process.kill()


@needs_prometheus
def test_faults_raise_their_alerts(tmp_path: Path, free_port: int) -> None:
    with (
        reporting_process(free_port, "faulty") as process,
        prometheus(tmp_path, [f"127.0.0.1:{free_port}"], [ALERTS], interval="200ms") as server,
    ):
        try:
            expected = {
                "ArlowLossNotFinite",
                "ArlowCheckpointUploadFailing",
                "ArlowGradientNormSpike",
            }
            end = time.monotonic() + 45
            while not expected <= server.firing().keys():
                assert time.monotonic() < end, server.firing()
                time.sleep(0.5)
            alert = server.firing()["ArlowGradientNormSpike"]
            assert alert["run"] == "quick"
            assert "gradient norm of 50" in alert["summary"]
        finally:
            process.kill()
