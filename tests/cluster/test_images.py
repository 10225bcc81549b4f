"""The images as clusters run them, and the manifests of a first run."""

from __future__ import annotations

import json
import os
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest
from cluster_runs import TinyRuns
from kube import TRAINER_IMAGE, Cluster, Refused, address_towards, in_phase

from arlow_operator.render.job import INIT
from arlow_trainer.config.yaml_text import read_documents
from support.s3_server import S3

MANIFESTS = Path(__file__).parents[2] / "manifests"
STORE_IMAGE = os.environ.get("ARLOW_STORE_IMAGE", "localhost/arlow-store:test")
KIT_STATE = Path("/var/tmp/arlow-cluster")
# Of its nodes and pods.
KIT_NETWORK = "10.244.0.0/16"
STEPS = 30


@contextmanager
def forwarded(namespace: str, target: str, port: int) -> Iterator[int]:
    """Yields a local port that reaches one of a Service's pods."""
    command = ["kubectl", "port-forward", "-n", namespace, target, f":{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield int(process.stdout.readline().split(" -> ")[0].rpartition(":")[2])
        finally:
            process.terminate()


def test_a_first_run_needs_only_its_manifests(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    for each in read_documents((MANIFESTS / "store.yaml").read_text("utf-8")):
        if each["kind"] == "Deployment":
            each["spec"]["template"]["spec"]["containers"][0]["image"] = STORE_IMAGE
        each["metadata"]["namespace"] = namespace
        cluster.apply(each)
    cluster.kubectl("rollout", "status", "deployment/arlow-store", "-n", namespace, "--timeout=60s")
    [run] = read_documents((MANIFESTS / "pretrain-tiny.yaml").read_text("utf-8"))
    run["metadata"]["namespace"] = namespace
    # As it stands it is a few minutes.
    run["spec"]["training"]["maxStepsPerEpoch"] = STEPS
    cluster.apply(run)

    cluster.wait_for_status("tiny", namespace, lambda s: s.get("progress", {}).get("step", 0) > 0)
    [pod] = cluster.pods("tiny", namespace)
    target = (pod["metadata"]["name"], "-n", namespace)
    first = cluster.kubectl("exec", *target, "--", "cat", "/proc/1/cmdline").split("\0")
    assert first[: len(INIT)] == list(INIT)
    done = cluster.wait_for_status("tiny", namespace, in_phase("Succeeded", "Failed"))
    assert done["phase"] == "Succeeded", done
    assert done["lastCheckpoint"]["step"] == STEPS

    secret = cluster.get("secret", "arlow-store", namespace)["data"]
    assert secret.keys() >= {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"}
    with forwarded(namespace, "service/arlow-store", 8333) as port:
        file_system = fsspec.filesystem(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            key=b64decode(secret["AWS_ACCESS_KEY_ID"]).decode(),
            secret=b64decode(secret["AWS_SECRET_ACCESS_KEY"]).decode(),
        )
        source = done["lastCheckpoint"]["url"].removeprefix("s3://") + "/vision_encoder"
        file_system.get(source, str(tmp_path / "tower"), recursive=True)
    from transformers import AutoModel

    model = AutoModel.from_pretrained(tmp_path / "tower", trust_remote_code=True)
    assert sum(parameter.numel() for parameter in model.parameters()) > 100_000


def test_any_user_of_group_0_trains_with_a_read_only_root(cluster: Cluster, namespace: str) -> None:
    """As OpenShift starts containers: a uid that no file names, and HOME=/."""
    pictures = "/usr/share/arlow/pictures"
    script = (
        "set -e; id -u; "
        f"arlow train tiny --plain --set data.images.path={pictures}/images "
        f"--set data.videos.path={pictures}/videos --set maxStepsPerEpoch=3 --set data.workers=1 "
        "--set batch.globalSize=2 --set picturesEverySteps=2 --set checkpoint.url=/tmp/runs; "
        "arlow report /tmp/runs/tiny --out /tmp/report.html; "
        "arlow curves /tmp/runs/tiny --out /tmp/curves.png; ls /tmp/report.html /tmp/curves.png"
    )
    # In a file, not in the pod's log: where nodes share a machine, one may delete another's logs.
    kept = f"({script}) >/tmp/log 2>&1; echo $? >/tmp/code; exec sleep 600"
    container = {
        "name": "trainer",
        "image": TRAINER_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": [*INIT, "sh", "-c", kept],
        "env": [{"name": "HOME", "value": "/"}, {"name": "OMP_NUM_THREADS", "value": "1"}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1_000_650_000,
            "runAsGroup": 0,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    metadata = {"name": "anyone", "namespace": namespace}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    code = _file(cluster, "anyone", namespace, "/tmp/code")
    log = _file(cluster, "anyone", namespace, "/tmp/log")
    assert code == "0\n", log
    assert log.splitlines()[0] == "1000650000"
    assert log.splitlines()[-2:] == ["/tmp/curves.png", "/tmp/report.html"]
    assert "not a writable directory" not in log
    assert "Traceback" not in log


def test_a_run_needs_no_network_but_its_store(cluster: Cluster, runs: TinyRuns) -> None:
    """Whatever a pod begins to send to anything but the store is dropped on the kit's bridge."""
    if os.geteuid() != 0 or not KIT_STATE.exists():
        pytest.skip("it cuts traffic with iptables on the bridge of the kit's cluster, as root")
    pictures = {"maxStepsPerEpoch": STEPS, "picturesEverySteps": STEPS // 2}
    with _only_reaching(cluster, runs.s3):
        cluster.apply(runs.manifest("tiny", training=pictures))
        done = runs.wait("tiny", in_phase("Succeeded", "Failed"))
    assert done["phase"] == "Succeeded", done
    assert done["restarts"]["total"] == 0


@contextmanager
def _only_reaching(cluster: Cluster, store: S3) -> Iterator[None]:
    """Lets pods that start from now on begin nothing but connections to the store."""
    addresses = [
        each["status"]["podIP"]
        for each in json.loads(cluster.kubectl("get", "pods", "-A", "-o", "json"))["items"]
        if each["status"].get("podIP")
    ]
    here = address_towards(cluster.node_address())
    port = store.endpoint.rpartition(":")[2]
    chain = "ARLOW-TEST"
    # The nodes and the control plane are of this machine.
    rules: list[list[str]] = [["-N", chain], ["-A", chain, "-i", "lo", "-j", "RETURN"]]
    rules += [["-A", chain, "-s", each, "-j", "RETURN"] for each in addresses]
    rules.append(["-A", chain, "-m", "conntrack", "!", "--ctstate", "NEW", "-j", "RETURN"])
    allowed = ["-p", "tcp", "-d", here, "--dport", port, "-j", "RETURN"]
    rules.append(["-A", chain, *allowed])
    rules.append(["-A", chain, "-s", KIT_NETWORK, "-j", "DROP"])
    hooks = ("FORWARD", "INPUT")
    rules += [["-I", hook, "-j", chain] for hook in hooks]
    try:
        for rule in rules:
            subprocess.run(["iptables", "-w", *rule], check=True)
        yield
    finally:
        for hook in hooks:
            subprocess.run(["iptables", "-w", "-D", hook, "-j", chain], check=False)
        for flag in ("-F", "-X"):
            subprocess.run(["iptables", "-w", flag, chain], check=False)


def _file(cluster: Cluster, pod: str, namespace: str, path: str, timeout_s: float = 300) -> str:
    """Returns what is in a file of a pod, once it is there."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return cluster.kubectl("exec", pod, "-n", namespace, "--", "cat", path)
        except Refused as error:
            assert time.monotonic() < deadline, error
        time.sleep(0.5)
