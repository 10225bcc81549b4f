"""What cluster tests do with kubectl and Helm, and wait for."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

TRAINER_IMAGE = os.environ.get("ARLOW_TRAINER_IMAGE", "localhost/arlow-trainer:test")
OPERATOR_IMAGE = os.environ.get("ARLOW_OPERATOR_IMAGE", "localhost/arlow-operator:test")
CHART = Path(__file__).parents[2] / "charts"
RELEASE = ("arlow", "-n", "arlow-system")
TIMEOUT_S = 300.0


class Refused(Exception):
    """kubectl or Helm ended with an error; the message is what it wrote."""


class Cluster:
    """The cluster that KUBECONFIG names."""

    def __init__(self) -> None:
        # So that each test session has a new operator, of the newest image.
        self._session = uuid.uuid4().hex

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Returns what kubectl prints. Raises Refused."""
        return _output("kubectl", *arguments, stdin=stdin)

    def helm(self, *arguments: str, stdin: str | None = None) -> str:
        """Returns what Helm prints. Raises Refused."""
        return _output("helm", *arguments, stdin=stdin)

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Applies objects as users do, client-side. Raises Refused."""
        self.kubectl(
            "apply",
            "-f",
            "-",
            stdin=json.dumps({"kind": "List", "apiVersion": "v1", "items": objects}),
        )

    def get(self, kind: str, name: str, namespace: str) -> dict[str, Any]:
        """Returns an object. Raises Refused."""
        found: dict[str, Any] = json.loads(
            self.kubectl("get", kind, name, "-n", namespace, "-o", "json")
        )
        return found

    def items(self, kind: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """Returns the objects of a kind in a namespace."""
        answer = self.kubectl("get", kind, "-n", namespace, "-l", selector, "-o", "json")
        return list(json.loads(answer)["items"])

    def wait_until_gone(self, kind: str, namespace: str, timeout_s: float = 60.0) -> None:
        """Waits until a namespace has no object of a kind."""
        deadline = time.monotonic() + timeout_s
        while found := self.items(kind, namespace):
            assert time.monotonic() < deadline, [each["metadata"]["name"] for each in found]
            time.sleep(0.3)

    def create_namespace(self, name: str) -> None:
        """Creates a namespace that takes only what Pod Security `restricted` allows."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        metadata = {"name": name, "labels": labels}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})

    def install(self, *values: str) -> None:
        """Installs the chart as users do, or upgrades it, and waits until its objects are ready.

        Args:
            values: what differs from the tests' own values, as `helm --set` takes it.
        """
        self.create_namespace("arlow-system")
        ours = {
            "image": {"operator": _image(OPERATOR_IMAGE), "trainer": _image(TRAINER_IMAGE)},
            "podAnnotations": {"arlow.dev/test-session": self._session},
            "progressSeconds": 1,
            # The GPUs of a test cluster are on paper.
            "runs": {"allowCpu": True},
        }
        changed = [word for value in values for word in ("--set", value)]
        # A test that failed may have left fields that kubectl set.
        flags = ("--force-conflicts", "--wait", "--timeout", "100s", "--values", "-", *changed)
        self.helm("upgrade", "--install", *RELEASE, str(CHART), *flags, stdin=json.dumps(ours))

    def rendered(self) -> str:
        """Returns the installed release as `helm template` renders it, without its tests."""
        values = self.helm("get", "values", *RELEASE, "-o", "json")
        flags = ("--skip-tests", "--values", "-")
        return self.helm("template", *RELEASE, str(CHART), *flags, stdin=values)

    def differences(self, manifest: str) -> str:
        """Returns in what the cluster differs from a manifest, as GitOps tools see it."""
        command = ("diff", "--server-side", "-f", "-")
        # It ends with 1 where something differs.
        return _output("kubectl", *command, stdin=manifest, allowed=(0, 1))

    def restart_operator(self) -> None:
        """Ends the operator and starts another."""
        self.kubectl("rollout", "restart", *OPERATOR)
        self.wait_for_operator()

    def scale_operator(self, replicas: int) -> None:
        """Has so many operators run, and waits until they do, or until none is left."""
        self.kubectl("scale", *OPERATOR, f"--replicas={replicas}")
        self.wait_for_operator()
        if replicas == 0:
            self.wait_until_gone("pods", "arlow-system")

    def wait_for_operator(self) -> None:
        """Waits until the operator is as its Deployment wants it."""
        self.kubectl("rollout", "status", *OPERATOR, "--timeout=100s")

    def evict(self, pod: str, namespace: str) -> None:
        """Evicts a pod, as a drain of its node does."""
        metadata = {"name": pod, "namespace": namespace}
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
        self.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))

    def keep_operator_off(self, node: str) -> None:
        """Has the operator run on another node than this one; on any, where it is empty."""
        wanted = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": [node]}
        terms = {"nodeSelectorTerms": [{"matchExpressions": [wanted]}]}
        rule = {"requiredDuringSchedulingIgnoredDuringExecution": terms}
        affinity = {"nodeAffinity": rule} if node else None
        patch = {"spec": {"template": {"spec": {"affinity": affinity}}}}
        self.kubectl("patch", *OPERATOR, "--type=merge", "-p", json.dumps(patch))
        self.wait_for_operator()

    def python_in(self, pod: Mapping[str, Any], code: str) -> None:
        """Runs Python code in the container of a pod."""
        metadata = pod["metadata"]
        target = (metadata["name"], "-n", metadata["namespace"])
        self.kubectl("exec", *target, "--", "python3", "-c", code)

    def operator_metrics(self) -> str:
        """Returns what Prometheus reads of the operator that works."""
        path = f"/api/v1/namespaces/arlow-system/pods/{self.lease_holder()}:8081/proxy/metrics"
        return self.kubectl("get", "--raw", path)

    def lease_holder(self) -> str:
        """Returns the pod of the operator that works; empty where none does."""
        lease = self.get("lease", "arlow-operator", "arlow-system")
        return str(lease["spec"].get("holderIdentity", ""))

    def wait_for_log(self, pod: str, words: str, timeout_s: float = 60.0) -> None:
        """Waits until an operator's log has some words."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                log = self.kubectl("logs", pod, "-n", "arlow-system")
            except Refused as error:
                # Of a container that is being created.
                log = str(error)
            if words in log:
                return
            assert time.monotonic() < deadline, log
            time.sleep(0.5)

    def node_address(self) -> str:
        """Returns the address of a node, one that exists on paper only excepted."""
        nodes = json.loads(self.kubectl("get", "nodes", "-l", "type!=kwok", "-o", "json"))["items"]
        addresses = {a["type"]: a["address"] for a in nodes[0]["status"]["addresses"]}
        return str(addresses["InternalIP"])

    def status(self, name: str, namespace: str) -> dict[str, Any]:
        """Returns the status of a run; empty before there is one."""
        return dict(self.get("arlowpretrain", name, namespace).get("status") or {})

    def pods(self, name: str, namespace: str) -> list[dict[str, Any]]:
        """Returns the pods of a run."""
        return self.items("pods", namespace, f"arlow.dev/run={name}")

    def wait_for_status(
        self,
        name: str,
        namespace: str,
        holds: Callable[[dict[str, Any]], bool],
        timeout_s: float = TIMEOUT_S,
    ) -> dict[str, Any]:
        """Waits until a run's status is as wanted, and returns it."""
        deadline = time.monotonic() + timeout_s
        while True:
            status = self.status(name, namespace)
            if holds(status):
                return status
            if time.monotonic() > deadline:
                raise AssertionError(f"{name} never came so far: {json.dumps(status, indent=1)}")
            time.sleep(0.3)


class Kit:
    """Programs that do to a test cluster what no API does; docs/operator.md names them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, program: str, *arguments: str) -> str:
        """Runs one of them, and returns what it prints."""
        command = [str(self._folder / program), *arguments]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=120
        ).stdout


def _output(*command: str, stdin: str | None, allowed: Sequence[int] = (0,)) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120)
    if done.returncode not in allowed:
        raise Refused(done.stderr.strip())
    return done.stdout


def _image(name: str) -> dict[str, str]:
    repository, _, tag = name.rpartition(":")
    return {"repository": repository, "tag": tag}


OPERATOR = ("-n", "arlow-system", "deployment/arlow-operator")


def arlow(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of the trainer's, without a terminal."""
    command = [sys.executable, "-c", "from arlow_trainer.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def in_phase(*phases: str) -> Callable[[dict[str, Any]], bool]:
    """Returns whether a status is in one of some phases."""
    return lambda status: status.get("phase") in phases


def condition(status: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Returns a condition of a status."""
    return next(each for each in status["conditions"] if each["type"] == kind)


def address_towards(host: str) -> str:
    """Returns this machine's address on the way to another, by which that one reaches it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))
        return str(probe.getsockname()[0])
