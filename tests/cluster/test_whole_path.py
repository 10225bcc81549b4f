"""From `kubectl apply` to Succeeded and a tower that loads, all of it real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
from cluster_runs import TinyRuns
from kube import Cluster, condition, in_phase

from support.s3_server import S3

STEPS = 60


def test_a_run_is_trained_and_its_tower_loads(
    cluster: Cluster, runs: TinyRuns, tmp_path: Path
) -> None:
    cluster.apply(runs.manifest("tiny", training={"maxStepsPerEpoch": STEPS}))

    runs.wait("tiny", shows_progress)
    done = runs.wait("tiny", in_phase("Succeeded", "Failed"))
    assert done["phase"] == "Succeeded", done
    assert done["progress"]["step"] == STEPS
    assert done["lastCheckpoint"]["step"] == STEPS
    assert done["attempt"]["number"] == 1
    assert condition(done, "Finished")["status"] == "True"
    row = cluster.kubectl("get", "apt", "tiny", "-n", runs.namespace).splitlines()[1].split()
    assert row[:4] == ["tiny", "Succeeded", str(STEPS), "100"]

    _assert_tower_loads(runs.s3, done["lastCheckpoint"]["url"], tmp_path / "tower")


def shows_progress(status: dict[str, Any]) -> bool:
    """Whether a run is seen while it trains."""
    assert status.get("phase") not in ("Failed", "Succeeded"), status
    return status.get("progress", {}).get("totalSteps") == STEPS and status["progress"]["step"] > 0


def _assert_tower_loads(s3: S3, checkpoint: str, folder: Path) -> None:
    from transformers import AutoModel

    file_system = fsspec.filesystem("s3", **s3.options)
    source = checkpoint.removeprefix("s3://") + "/vision_encoder"
    file_system.get(source, str(folder), recursive=True)
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    assert sum(parameter.numel() for parameter in model.parameters()) > 100_000
