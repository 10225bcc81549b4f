"""Tiny runs on a real S3 server, as objects of the cluster."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from kube import TIMEOUT_S, Cluster

from support.class_folders import write_folders
from support.s3_server import S3

SECRET = "store"
PROGRAM_FOLDER = "/program"


def put_images(s3: S3, url: str, folder: Path) -> None:
    """Stores pictures on the server, in the folder of a URL."""
    write_folders(folder, train=12, test=0)
    file_system = fsspec.filesystem("s3", **s3.options)
    file_system.put(str(folder / "train"), url.removeprefix("s3://"), recursive=True)


@dataclass(frozen=True)
class TinyRuns:
    """Runs of a namespace, each of a tower that makes a few steps a second on a CPU."""

    cluster: Cluster
    namespace: str
    s3: S3
    images: str

    def create_secret(self) -> None:
        """Creates the Secret that the runs reach the server with."""
        metadata = {"name": SECRET, "namespace": self.namespace}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}
        self.cluster.apply(secret | {"stringData": self.s3.environment})

    def manifest(self, name: str = "run", **spec: Any) -> dict[str, Any]:
        """Returns a run without an end; what is given of a section of its spec replaces ours."""
        training = {
            "preset": "tiny",
            "maxStepsPerEpoch": 1_000_000,
            "picturesEverySteps": 0,
            "logEverySteps": 1,
            "data": {
                "images": {"path": self.images},
                "videoProbability": 0,
                "workers": 0,
                "imageSize": 24,
            },
            "batch": {"globalSize": 4},
            "optimizer": {"warmupSteps": 2},
        }
        checkpoint = {
            "url": self.s3.url(f"runs-{self.namespace}"),
            "everySteps": 20,
            "secretRef": {"name": SECRET},
        }
        ours: dict[str, Any] = {
            "training": training,
            "checkpoint": checkpoint,
            "nodes": {"gpus": 0, "memory": "2Gi"},
            # A node may show more cores than there are.
            "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],
            "terminationGracePeriodSeconds": 30,
        }
        for section, value in spec.items():
            both = isinstance(value, dict) and isinstance(ours.get(section), dict)
            ours[section] = ours[section] | value if both else value
        return {
            "apiVersion": "arlow.dev/v1alpha1",
            "kind": "ArlowPretrain",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": ours,
        }

    def idle(self, name: str = "run", **spec: Any) -> dict[str, Any]:
        """Returns a run whose pods never start: its image is nowhere."""
        nowhere = {"image": "localhost/missing:1", "imagePullPolicy": "Never"}
        return self.manifest(name, **nowhere, **spec)

    def start(self, name: str = "run", **spec: Any) -> dict[str, Any]:
        """Starts a run, and returns its status when it trains and has a checkpoint."""
        self.cluster.apply(self.manifest(name, **spec))
        return self.wait(name, trains(1))

    def start_program(self, name: str, program: str, **spec: Any) -> None:
        """Starts a run whose pods have another program in the trainer's place."""
        metadata = {"name": name, "namespace": self.namespace}
        config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
        self.cluster.apply(config_map | {"data": {"arlow": program}})
        files = {"name": "program", "configMap": {"name": name, "defaultMode": 0o755}}
        mount = {"name": "program", "mountPath": PROGRAM_FOLDER}
        container = {"name": "trainer", "volumeMounts": [mount]}
        path = f"{PROGRAM_FOLDER}:/opt/arlow/bin:/usr/local/bin:/usr/bin:/bin"
        self.cluster.apply(
            self.manifest(
                name,
                env=[{"name": "PATH", "value": path}],
                podTemplatePatch={"spec": {"volumes": [files], "containers": [container]}},
                **spec,
            )
        )

    def status(self, name: str = "run") -> dict[str, Any]:
        """Returns the status of a run."""
        return self.cluster.status(name, self.namespace)

    def wait(
        self, name: str, holds: Callable[[dict[str, Any]], bool], timeout_s: float = TIMEOUT_S
    ) -> dict[str, Any]:
        """Waits until a run's status is as wanted, and returns it."""
        return self.cluster.wait_for_status(name, self.namespace, holds, timeout_s)

    def pods(self, name: str = "run") -> list[dict[str, Any]]:
        """Returns the pods of a run."""
        return self.cluster.pods(name, self.namespace)

    def patch(self, name: str = "run", **spec: Any) -> None:
        """Changes fields of a run's spec. Raises Refused."""
        arguments = ("patch", "apt", name, "-n", self.namespace, "--type=merge")
        self.cluster.kubectl(*arguments, "-p", json.dumps({"spec": spec}))

    def delete(self, name: str = "run") -> None:
        """Deletes a run."""
        self.cluster.kubectl("delete", "apt", name, "-n", self.namespace)


def trains(attempt: int, above: int = 0) -> Callable[[dict[str, Any]], bool]:
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


def goes_on(before: dict[str, Any]) -> Callable[[dict[str, Any]], bool]:
    """Returns whether a run trains above a status's checkpoint, in any attempt."""

    def holds(status: dict[str, Any]) -> bool:
        assert status.get("phase") not in ("Failed", "Succeeded"), status
        last = status.get("lastCheckpoint", {}).get("step", -1)
        return status.get("phase") == "Running" and last > before["lastCheckpoint"]["step"]

    return holds


def restarted(before: dict[str, Any]) -> Callable[[dict[str, Any]], bool]:
    """Returns whether the attempt after a status's trains above its checkpoint."""
    return trains(before["attempt"]["number"] + 1, before["lastCheckpoint"]["step"])


def told(words: str) -> Callable[[dict[str, Any]], bool]:
    """Returns whether a status's message has some words."""
    return lambda status: words in status.get("message", "")
