"""`arlow watch apt/NAME` and `arlow retry apt/NAME`: a run that failed is mended and goes on."""

from __future__ import annotations

import dataclasses
import uuid
from pathlib import Path

from cluster_runs import TinyRuns, put_images, trains
from kube import Cluster, arlow, in_phase


def test_a_failed_run_is_watched_and_begins_again_when_it_is_mended(
    cluster: Cluster, runs: TinyRuns, tmp_path: Path
) -> None:
    images = runs.s3.url(f"images-{uuid.uuid4().hex[:8]}")
    later = dataclasses.replace(runs, images=images)
    cluster.apply(later.manifest("mended"))
    failed = runs.wait("mended", in_phase("Failed"))
    assert images in failed["message"]
    assert failed["restarts"]["total"] == 0

    target = ("apt/mended", "-n", runs.namespace)
    shown = arlow("watch", *target, "--once")
    assert "Failed, attempt 1" in shown.stdout, shown
    put_images(runs.s3, images, tmp_path / "images")
    asked = arlow("retry", *target)
    assert "begins again" in asked.stdout, asked
    runs.wait("mended", trains(2))

    # Through the API server, the trainer's own status is shown.
    shown = arlow("watch", *target, "--once")
    assert "Running, attempt 2" in shown.stdout, shown
    refused = arlow("retry", *target)
    assert "only a Failed run begins again" in refused.stderr
    assert refused.returncode == 78
    unknown = arlow("watch", "apt/nowhere", "-n", runs.namespace)
    assert f"there is no apt/nowhere in the namespace {runs.namespace}" in unknown.stderr
