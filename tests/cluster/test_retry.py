"""`arlow watch apt/NAME` and `arlow retry apt/NAME`: a run that failed is mended and goes on."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

from cluster_runs import create_secret, put_images_at, tiny_run, trains
from kube import Cluster, in_phase

from support.s3_server import S3


def arlow(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from arlow_trainer.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_failed_run_is_watched_and_begins_again_when_it_is_mended(
    cluster: Cluster, cluster_s3: S3, namespace: str, tmp_path: Path
) -> None:
    create_secret(cluster, cluster_s3, namespace)
    images = cluster_s3.url(f"images-{uuid.uuid4().hex[:8]}")
    cluster.apply(tiny_run("mended", namespace, cluster_s3, images))
    failed = cluster.wait_for_status("mended", namespace, in_phase("Failed"))
    assert images in failed["message"]
    assert failed["restarts"]["total"] == 0

    target = ("apt/mended", "-n", namespace)
    shown = arlow("watch", *target, "--once")
    assert "Failed, attempt 1" in shown.stdout, shown
    put_images_at(cluster_s3, images, tmp_path / "images")
    asked = arlow("retry", *target)
    assert "begins again" in asked.stdout, asked
    cluster.wait_for_status("mended", namespace, trains(2))

    # Through the API server, the trainer's own status is shown.
    shown = arlow("watch", *target, "--once")
    assert "Running, attempt 2" in shown.stdout, shown
    refused = arlow("retry", *target)
    assert "only a Failed run begins again" in refused.stderr
    assert refused.returncode == 78
    unknown = arlow("watch", "apt/nowhere", "-n", namespace)
    assert f"there is no apt/nowhere in the namespace {namespace}" in unknown.stderr
