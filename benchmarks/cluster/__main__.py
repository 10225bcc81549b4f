"""`python -m benchmarks.cluster --kit KIT --out PAGE`: the operator beside its peers.

Needs the kit of a test cluster that runs on this machine, with the operator and the peers in it
(docs/operator.md, Benchmark): it kills containers, and reads the operator's process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from http.server import ThreadingHTTPServer
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import psutil
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.cluster.kinds import (
    FOLDER,
    VOLUME,
    arlow_run,
    job_set,
    paper_run,
    plain_job,
    train_job,
    training_run,
    training_runtime,
    volume,
)
from benchmarks.result import Result
from benchmarks.samples import write_jpegs

NAMESPACE = "arlow-bench"
STAND_IN = Path(__file__).parent / "stand_in"
GATEWAY = "10.244.0.1"
PAPER_ADDRESSES = "10.250.0.0/16"
Kind = Callable[[str, list[dict[str, str]]], dict[str, Any]]


def kubectl(*arguments: str, stdin: str | None = None) -> str:
    done = subprocess.run(
        ["kubectl", *arguments], input=stdin, capture_output=True, text=True, timeout=600
    )
    if done.returncode:
        sys.exit(f"kubectl {' '.join(arguments)}: {done.stderr}")
    return done.stdout


class Beacons:
    """When each stand-in told that its first line runs."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("0.0.0.0", 0))
        self._socket.settimeout(120)
        self.port = self._socket.getsockname()[1]

    def env(self, name: str) -> list[dict[str, str]]:
        pairs = {"BEACON_NAME": name, "BEACON_HOST": GATEWAY, "BEACON_PORT": str(self.port)}
        return [{"name": key, "value": value} for key, value in pairs.items()]

    def wait_for(self, name: str) -> float:
        while self._socket.recv(256).decode() != name:
            pass
        return time.monotonic()


def measure_starts(kit: Path, rounds: int) -> Result:
    """Create to the first line of Python, and a killed container to the next first line."""
    kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(training_runtime()))
    beacons = Beacons()
    kinds: dict[str, tuple[Kind, str]] = {
        "plain Job": (plain_job, ""),
        "JobSet": (job_set, "jobset.sigs.k8s.io/jobset-name="),
        "Kubeflow Trainer": (train_job, "jobset.sigs.k8s.io/jobset-name="),
        "Arlow": (arlow_run, "arlow.dev/run="),
    }
    starts: dict[str, list[float]] = {kind: [] for kind in kinds}
    restarts: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(rounds):
        for kind, (make, label) in kinds.items():
            name = f"{kind.split()[0].lower()}-{number}"
            body = make(name, beacons.env(name))
            began = time.monotonic()
            kubectl("create", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(body))
            starts[kind].append(beacons.wait_for(name) - began)
            if label:
                # So that the operator has seen progress, after which it does not wait.
                time.sleep(5)
                pods = kubectl("get", "pods", "-n", NAMESPACE, "-l", label + name, "-o", "name")
                pod = pods.split()[0].removeprefix("pod/")
                began = time.monotonic()
                subprocess.run([kit / "kill", pod, NAMESPACE], check=True, capture_output=True)
                restarts[kind].append(beacons.wait_for(name) - began)
            kubectl("delete", body["kind"], name, "-n", NAMESPACE, "--wait=false")
            time.sleep(2)
    rows = [
        (kind, _seconds(starts[kind]), _seconds(restarts[kind]) if restarts[kind] else "-")
        for kind in kinds
    ]
    return Result(
        "Start and restart, beside the peers",
        f"One pod of one stand-in, median (range) of {rounds} rounds in turn; the time of "
        "`kubectl create` and of the kit's `kill` is in each.",
        ("", "create to first line, s", "killed to first line in a new pod, s"),
        rows,
    )


def measure_next_step(kit: Path, rounds: int) -> Result:
    """A killed container of the real trainer to its next step, and the parts of that."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    write_jpegs(FOLDER / "images", 16)
    # The trainer is no root, and writes there.
    FOLDER.chmod(0o777)
    items = [*volume(NAMESPACE), training_run("steps")]
    items[-1]["metadata"]["namespace"] = NAMESPACE
    body = {"apiVersion": "v1", "kind": "List", "items": items}
    kubectl("create", "-f", "-", stdin=json.dumps(body))
    totals, parts = [], []
    for number in range(rounds):
        _wait(lambda number=number: len(_starts()) == number + 1)
        folders = FOLDER.glob("runs/steps/checkpoint-*/manifest.json")
        saved = max((int(each.parent.name.split("-")[1]) for each in folders), default=0)
        _wait(lambda saved=saved: _checkpoint() > saved)
        label = ("-l", "arlow.dev/run=steps", "-o", "name")
        [pod] = kubectl("get", "pods", "-n", NAMESPACE, *label).split()
        killed = time.time()
        command = [kit / "kill", pod.removeprefix("pod/"), NAMESPACE]
        subprocess.run(command, check=True, capture_output=True)
        _wait(lambda number=number: len(_starts()) == number + 2)
        started = _starts()[-1]
        totals.append(_time(started["time"]).timestamp() - killed)
        parts.append(started["seconds"])
    kubectl("delete", "apt", "steps", "-n", NAMESPACE)
    kubectl("delete", "pvc", VOLUME, "-n", NAMESPACE, "--wait=false")
    kubectl("delete", "pv", VOLUME, "--wait=false")
    shutil.rmtree(FOLDER, ignore_errors=True)
    around = [total - sum(each.values()) for total, each in zip(totals, parts, strict=True)]
    names = list(parts[0])
    rows = [
        ("operator, Kubernetes, container", _seconds(around)),
        *((name, _seconds([each.get(name, 0.0) for each in parts])) for name in names),
        ("in all", _seconds(totals)),
    ]
    return Result(
        "A killed container to the next step",
        f"The real trainer with the tiny tower on a CPU, median (range) of {rounds} kills; the "
        "parts are those of the trainer's event `started`.",
        ("part", "s"),
        rows,
    )


def _starts() -> list[dict[str, Any]]:
    file = FOLDER / "runs/steps/events.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [each for each in map(json.loads, lines) if each["kind"] == "started"]


def _checkpoint() -> int:
    status = json.loads(kubectl("get", "apt", "steps", "-n", NAMESPACE, "-o", "json"))["status"]
    return int(status.get("lastCheckpoint", {}).get("step", -1))


def measure_scale(sizes: Sequence[int], every: int) -> Result:
    """Runs on nodes that only exist on paper."""
    rows = []
    created = 0
    for size in sizes:
        names = [f"paper-{number}" for number in range(created, size)]
        items = [paper_run(name) for name in names]
        body = {"apiVersion": "v1", "kind": "List", "items": items}
        kubectl("create", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(body))
        created = size
        _wait(lambda size=size: _running() >= size)
        lags = _job_lags(set(names))
        single = _single_create(f"single-{size}")
        before, began, cpu = _requests(), time.monotonic(), _operator().cpu_times()
        time.sleep(every)
        minutes = (time.monotonic() - began) / 60
        after, used = _requests(), _operator().cpu_times()
        seconds = used.user + used.system - cpu.user - cpu.system
        verbs = {verb: (after[verb] - before.get(verb, 0)) / minutes for verb in after}
        others = sum(number for verb, number in verbs.items() if verb != "patch")
        rows.append(
            (
                str(size),
                f"{statistics.median(lags):.0f} / {_p99(lags):.0f}",
                f"{single:.2f}",
                f"{statistics.median(_ages()):.0f} / {_p99(_ages()):.0f}",
                f"{verbs.get('patch', 0):.0f} / {others:.0f}",
                f"{_operator().memory_info().rss / 2**20:.0f}",
                f"{100 * seconds / (minutes * 60):.1f}",
            )
        )
    restart = _first_full_pass()
    kubectl("delete", "apt", "--all", "-n", NAMESPACE, "--wait=false")
    return Result(
        "Many runs",
        "Runs of eight GPUs on nodes that only exist on paper; one local server answers /status "
        f"for all. Created by one `kubectl create`; rates over {every} s.",
        (
            "runs",
            "create to Job in the burst, median / p99, s (whole seconds)",
            "create to Job of one more, s",
            "age of progress in the status, median / p99, s",
            "status writes / other requests a minute (watches apart)",
            "memory of the operator, MiB",
            "CPU, % of a core",
        ),
        rows,
        (f"Operator restarted with {created} runs: {restart}.",),
    )


def _items(kind: str, *arguments: str) -> list[dict[str, Any]]:
    return json.loads(kubectl("get", kind, "-n", NAMESPACE, "-o", "json", *arguments))["items"]


def _running() -> int:
    selector = "status.phase=Running"
    return len(kubectl("get", "apt", "-n", NAMESPACE, "--field-selector", selector).split("\n")) - 2


def _job_lags(names: set[str]) -> list[float]:
    made = {
        each["metadata"]["labels"]["arlow.dev/run"]: _time(each["metadata"]["creationTimestamp"])
        for each in _items("jobs")
    }
    created = {
        each["metadata"]["name"]: _time(each["metadata"]["creationTimestamp"])
        for each in _items("apt")
    }
    return [(made[name] - created[name]).total_seconds() for name in names]


def _single_create(name: str) -> float:
    """Returns the seconds from the end of a create to its Job, as a watch on Jobs shows it."""
    command = ["kubectl", "get", "jobs", "-n", NAMESPACE, "--watch-only", "-o", "name"]
    command += ["-l", f"arlow.dev/run={name}"]
    watch = subprocess.Popen(command, stdout=subprocess.PIPE)
    time.sleep(2)
    kubectl("create", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(paper_run(name)))
    began = time.monotonic()
    assert watch.stdout is not None
    watch.stdout.readline()
    passed = time.monotonic() - began
    watch.kill()
    return max(0.0, passed)


def _ages() -> list[float]:
    now = datetime.now(UTC)
    heard = [(each.get("status") or {}).get("progress", {}) for each in _items("apt")]
    return [
        (now - _time(each["lastUpdateTime"])).total_seconds()
        for each in heard
        if "lastUpdateTime" in each
    ]


def _metrics() -> str:
    [pod] = _operator_pods()
    path = f"/api/v1/namespaces/arlow-system/pods/{pod}:8081/proxy/metrics"
    return kubectl("get", "--raw", path)


def _operator_pods() -> list[str]:
    label = "app.kubernetes.io/name=arlow-operator"
    names = kubectl("get", "pods", "-n", "arlow-system", "-l", label, "-o", "name")
    return [each.removeprefix("pod/") for each in names.split()]


def _requests() -> dict[str, float]:
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(_metrics()):
        for sample in family.samples:
            if sample.name == "arlow_operator_api_requests_total":
                verb = sample.labels["verb"]
                found[verb] = found.get(verb, 0) + sample.value
    return found


def _operator() -> psutil.Process:
    for process in psutil.process_iter(["cmdline"]):
        if any(word.endswith("/arlow-operator") for word in process.info["cmdline"] or ()):
            return process
    sys.exit("the operator's process was not found on this machine")


def _first_full_pass() -> str:
    kubectl("rollout", "restart", "-n", "arlow-system", "deployment/arlow-operator")
    kubectl("rollout", "status", "-n", "arlow-system", "deployment/arlow-operator")
    found: list[str] = []

    def logged() -> bool:
        log = kubectl("logs", "-n", "arlow-system", "deployment/arlow-operator")
        found[:] = [line for line in log.splitlines() if "full pass" in line]
        return bool(found)

    _wait(logged)
    return str(json.loads(found[0])["message"])


def _wait(holds: Callable[[], bool], seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            sys.exit("it never came so far")
        time.sleep(1)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.99 * len(values)))]


def _seconds(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}..{max(values):.2f})"


def _serve_status() -> None:
    """Answers /status at every address of the paper nodes' pods."""
    subprocess.run(["ip", "route", "replace", "local", PAPER_ADDRESSES, "dev", "lo"], check=True)
    loader = SourceFileLoader("stand_in", str(STAND_IN / "arlow"))
    spec = spec_from_loader("stand_in", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    server = ThreadingHTTPServer(("0.0.0.0", 9100), module.Status)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--kit", type=Path, default=os.environ.get("ARLOW_CLUSTER_KIT"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="*", default=[100, 300, 500])
    parser.add_argument("--seconds", type=int, default=120, help="over which rates are taken")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    kubectl("apply", "-f", "-", stdin=json.dumps(namespace))
    results = []
    if options.rounds:
        results.append(measure_starts(options.kit, options.rounds))
        results.append(measure_next_step(options.kit, options.rounds))
    if options.sizes:
        _serve_status()
        results.append(measure_scale(options.sizes, options.seconds))
    head = (
        "# Benchmark of the operator\n\nWritten by `python -m benchmarks.cluster` "
        f"on {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, load {load:.1f} before and "
        f"{os.getloadavg()[0]:.1f} after it.\n"
    )
    text = "\n".join([head, *(result.to_markdown() for result in results)])
    print(text)
    if options.out:
        options.out.write_text(text)
    kubectl("delete", "namespace", NAMESPACE, "--wait=false")


if __name__ == "__main__":
    main()
