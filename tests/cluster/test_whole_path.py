"""From `kubectl apply` to Succeeded and a tower that loads, all of it real."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import fsspec
from cluster_runs import TinyRuns
from kube import Cluster, condition

from support.s3_server import S3

STEPS = 60
TTL_S = 5
GITOPS_LABELS = {"argocd.argoproj.io/instance": "a", "kustomize.toolkit.fluxcd.io/name": "a"}
GITOPS_ANNOTATIONS = {"argocd.argoproj.io/tracking-id": "a"}


def test_a_run_is_trained_and_its_tower_loads(
    cluster: Cluster, runs: TinyRuns, tmp_path: Path
) -> None:
    run = runs.manifest("tiny", training={"maxStepsPerEpoch": STEPS}, ttlSecondsAfterFinished=TTL_S)
    run["metadata"] |= {"labels": GITOPS_LABELS, "annotations": GITOPS_ANNOTATIONS}
    cluster.apply(run)

    runs.wait("tiny", shows_progress)
    _assert_nothing_bears_the_tools_marks(cluster, runs.namespace)
    target = ("apt/tiny", "-n", runs.namespace)
    cluster.kubectl("wait", "--for=condition=Finished", *target, "--timeout=110s")
    done = runs.status("tiny")
    assert done["phase"] == "Succeeded", done
    assert done["progress"]["step"] == STEPS
    assert done["lastCheckpoint"]["step"] == STEPS
    assert done["attempt"]["number"] == 1
    assert condition(done, "Finished")["status"] == "True"
    row = cluster.kubectl("get", "apt", "tiny", "-n", runs.namespace).splitlines()[1].split()
    assert row[:4] == ["tiny", "Succeeded", str(STEPS), "100"]

    _assert_tower_loads(runs.s3, done["lastCheckpoint"]["url"], tmp_path / "tower")

    cluster.wait_until_gone("jobs", runs.namespace)
    _assert_applying_starts_nothing(cluster, run, done)
    # An operator that never saw its Job.
    cluster.restart_operator()
    _assert_applying_starts_nothing(cluster, run, done)


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


def _assert_nothing_bears_the_tools_marks(cluster: Cluster, namespace: str) -> None:
    """A GitOps tool would take what bears its marks for its own, and prune it."""
    for kind in ("jobs", "pods", "services", "configmaps"):
        of_run = cluster.items(kind, namespace, "arlow.dev/run=tiny")
        assert of_run, kind
        for metadata in (each["metadata"] for each in of_run):
            assert not metadata["labels"].keys() & GITOPS_LABELS.keys()
            assert not metadata.get("annotations", {}).keys() & GITOPS_ANNOTATIONS.keys()


def _assert_applying_starts_nothing(
    cluster: Cluster, run: dict[str, Any], done: dict[str, Any]
) -> None:
    cluster.apply(run)
    assert cluster.differences(json.dumps(run)) == ""
    time.sleep(3)
    namespace = run["metadata"]["namespace"]
    assert cluster.status("tiny", namespace) == done
    assert cluster.items("jobs", namespace) == []
