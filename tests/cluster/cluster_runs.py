"""Tiny runs on a real S3 server, as objects of the cluster."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import fsspec
from kube import Cluster

from support.class_folders import write_folders
from support.s3_server import S3

SECRET = "store"


def put_images(s3: S3, folder: Path) -> str:
    """Stores pictures on the server, and returns the URL of their folder."""
    url = s3.url(f"images-{uuid.uuid4().hex[:8]}")
    put_images_at(s3, url, folder)
    return url


def put_images_at(s3: S3, url: str, folder: Path) -> None:
    """Stores pictures on the server, in the folder of a URL."""
    write_folders(folder, train=12, test=0)
    file_system = fsspec.filesystem("s3", **s3.options)
    file_system.put(str(folder / "train"), url.removeprefix("s3://"), recursive=True)


def create_secret(cluster: Cluster, s3: S3, namespace: str) -> None:
    """Creates the Secret that runs reach the server with."""
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET, "namespace": namespace},
            "stringData": s3.environment,
        }
    )


def tiny_run(
    name: str, namespace: str, s3: S3, images: str, steps: int = 1_000_000
) -> dict[str, Any]:
    """Returns a run of a tower that makes a few steps a second on a CPU."""
    return {
        "apiVersion": "arlow.dev/v1alpha1",
        "kind": "ArlowPretrain",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "training": {
                "preset": "tiny",
                "maxStepsPerEpoch": steps,
                "picturesEverySteps": 0,
                "logEverySteps": 1,
                "data": {
                    "images": {"path": images},
                    "videoProbability": 0,
                    "workers": 0,
                    "imageSize": 24,
                },
                "batch": {"globalSize": 4},
                "optimizer": {"warmupSteps": 2},
            },
            "checkpoint": {
                "url": s3.url(f"runs-{namespace}"),
                "everySteps": 20,
                "secretRef": {"name": SECRET},
            },
            "nodes": {"gpus": 0, "memory": "2Gi"},
            # A node may show more cores than there are.
            "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],
            "terminationGracePeriodSeconds": 30,
        },
    }


def trains(attempt: int, above: int = 0) -> Any:
    """Returns whether an attempt makes steps above one, and has a checkpoint."""

    def holds(status: dict[str, Any]) -> bool:
        assert status.get("phase") not in ("Failed", "Succeeded"), status
        return (
            status.get("phase") == "Running"
            and status["attempt"]["number"] == attempt
            and status["progress"].get("step", 0) > above
            and status.get("lastCheckpoint", {}).get("step", -1) >= above
            and "lastCheckpoint" in status
        )

    return holds
