"""One pod that runs the stand-in for the trainer, as each of the peers makes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

IMAGE = "localhost/arlow-stand-in:test"
COMMAND = ["arlow", "--port", "9100"]
RUNTIME = "stand-in"


def pod_spec(env: list[dict[str, str]], name: str) -> dict[str, Any]:
    container = {"name": name, "image": IMAGE, "command": COMMAND, "env": env}
    return {"restartPolicy": "Never", "containers": [container]}


def plain_job(name: str, env: list[dict[str, str]]) -> dict[str, Any]:
    template = {"spec": pod_spec(env, "main")}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"completionMode": "Indexed", "completions": 1, "parallelism": 1}
        | {"backoffLimit": 0, "template": template},
    }


def job_set(name: str, env: list[dict[str, str]]) -> dict[str, Any]:
    job = plain_job(name, env)["spec"]
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": {"maxRestarts": 5},
            "replicatedJobs": [{"name": "a", "replicas": 1, "template": {"spec": job}}],
        },
    }


def training_runtime() -> dict[str, Any]:
    """Returns what TrainJobs are made of."""
    template = {"spec": pod_spec([], "node")}
    job = {"backoffLimit": 0, "template": template}
    label = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    replicated = {"name": "node", "template": {"metadata": {"labels": label}, "spec": job}}
    jobs = {"failurePolicy": {"maxRestarts": 5}, "replicatedJobs": [replicated]}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "ClusterTrainingRuntime",
        "metadata": {"name": RUNTIME, "labels": {"trainer.kubeflow.org/framework": "plainml"}},
        "spec": {"mlPolicy": {"numNodes": 1}, "template": {"spec": jobs}},
    }


def train_job(name: str, env: list[dict[str, str]]) -> dict[str, Any]:
    trainer = {"image": IMAGE, "command": COMMAND, "env": env, "numNodes": 1}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": name},
        "spec": {"runtimeRef": {"name": RUNTIME}, "trainer": trainer},
    }


def arlow_run(name: str, env: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "apiVersion": "arlow.dev/v1alpha1",
        "kind": "ArlowPretrain",
        "metadata": {"name": name},
        "spec": {
            "training": {"preset": "tiny", "data": {"images": {"path": "s3://a/b"}}},
            "checkpoint": {"url": "s3://a/runs"},
            "nodes": {"gpus": 0, "memory": "1Gi"},
            "image": IMAGE,
            "env": env,
        },
    }


VOLUME = "arlow-bench"
FOLDER = Path("/var/tmp/arlow-bench")


def volume(namespace: str) -> list[dict[str, Any]]:
    """Returns a volume on a folder of this machine, which its nodes share, and a claim of it."""
    size = {"storage": "1Gi"}
    modes = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": VOLUME},
            "spec": {"capacity": size, "hostPath": {"path": str(FOLDER)}} | modes,
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": VOLUME, "namespace": namespace},
            "spec": {"volumeName": VOLUME, "resources": {"requests": size}} | modes,
        },
    ]


def training_run(name: str) -> dict[str, Any]:
    """Returns a run of the real trainer, on that volume."""
    run = arlow_run(name, [{"name": "OMP_NUM_THREADS", "value": "1"}])
    del run["spec"]["image"]
    training = {
        "preset": "tiny",
        "maxStepsPerEpoch": 1_000_000,
        "picturesEverySteps": 0,
        "data": {
            "images": {"path": "/data/images"},
            "videoProbability": 0,
            "workers": 0,
            "imageSize": 24,
        },
        "batch": {"globalSize": 4},
    }
    mount = {"claimName": VOLUME, "mountPath": "/data", "readOnly": False}
    run["spec"] |= {
        "training": training,
        "checkpoint": {"url": "/data/runs", "everySteps": 20},
        "nodes": {"gpus": 0, "memory": "2Gi"},
        "dataVolumes": [mount],
    }
    return run


def paper_run(name: str) -> dict[str, Any]:
    """Returns a run of a whole node, which only nodes on paper take."""
    run = arlow_run(name, [])
    taint = {"key": "kwok.x-k8s.io/node", "operator": "Exists", "effect": "NoSchedule"}
    run["spec"]["nodes"] = {
        "gpus": 8,
        "nodeSelector": {"type": "kwok"},
        "tolerations": [taint],
    }
    return run
