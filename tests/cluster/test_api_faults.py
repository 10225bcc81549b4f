"""The API fails at random, and every run comes through. `make soak-cluster` runs it."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cluster_runs import TinyRuns
from faulty_proxy import faulty_proxy
from kube import Cluster, condition
from operator_here import running_operator, write_kubeconfig

pytestmark = pytest.mark.soak

RUNS = 8
SEED = 18
WITHIN_S = 240.0


class JobsSeen:
    """The Jobs that live at every moment, as a watch tells it.

    Attributes:
        doubled: runs with the names of their Jobs, of every moment in which one had several.
    """

    def __init__(self) -> None:
        self.doubled: list[tuple[str, list[str]]] = []
        self._live: dict[str, set[str]] = defaultdict(set)

    def take(self, line: str) -> None:
        kind, run, name = line.split()
        self._live[run].discard(name) if kind == "DELETED" else self._live[run].add(name)
        if len(self._live[run]) > 1:
            self.doubled.append((run, sorted(self._live[run])))


@contextmanager
def watched_jobs(namespace: str) -> Iterator[JobsSeen]:
    fields = (".type", r".object.metadata.labels.arlow\.dev/run", ".object.metadata.name")
    shown = "jsonpath=" + "{' '}".join(f"{{{each}}}" for each in fields) + "{'\\n'}"
    options = ("-w", "--output-watch-events", "-o", shown)
    command = ["kubectl", "get", "jobs", "-n", namespace, *options]
    seen = JobsSeen()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        lines = watch.stdout
        reader = threading.Thread(target=lambda: [seen.take(line) for line in lines])
        reader.start()
        try:
            yield seen
            assert watch.poll() is None, "the watch has ended"
        finally:
            watch.kill()
            reader.join()


def lives(above: dict[str, int], name: str) -> Callable[[dict[str, Any]], bool]:
    def holds(status: dict[str, Any]) -> bool:
        attempt = status.get("attempt", {})
        number = attempt.get("number", 0)
        assert number >= above.get(name, 0), status
        return number > above.get(name, 0) and "jobUid" in attempt

    return holds


def test_runs_come_through_an_api_that_fails_at_random(
    cluster: Cluster, runs: TinyRuns, no_operator: None, tmp_path: Path
) -> None:
    names = [f"run-{number}" for number in range(RUNS)]
    view = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    numbers: dict[str, int] = {}

    def each_lives() -> None:
        for name in names:
            status = runs.wait(name, lives(numbers, name), WITHIN_S)
            numbers[name] = status["attempt"]["number"]

    def each_is(kind: str) -> None:
        for name in names:
            runs.wait(
                name,
                lambda s: "conditions" in s and condition(s, kind)["status"] == "True",
                WITHIN_S,
            )

    began, log = time.monotonic(), tmp_path / "operator.log"
    with faulty_proxy(view["clusters"][0]["cluster"]["server"], SEED) as proxy:
        write_kubeconfig(cluster, tmp_path / "kubeconfig", proxy.url)
        with (
            watched_jobs(runs.namespace) as jobs,
            running_operator(tmp_path / "kubeconfig", log) as operator,
        ):
            proxy.kill = operator.kill
            cluster.apply(*(runs.idle(name) for name in names))
            each_lives()
            for name in names:
                runs.patch(name, suspend=True)
            each_is("Suspended")
            for name in names:
                runs.patch(name, suspend=False)
            each_lives()
            for name in names:
                job = f"{name}-{numbers[name]}"
                cluster.kubectl("delete", "job", job, "-n", runs.namespace, "--wait=false")
            each_lives()
            for name in names:
                runs.patch(name, activeDeadlineSeconds=1)
            each_is("Failed")
            for name in names:
                runs.patch(name, activeDeadlineSeconds=None)
            cluster.wait_until_gone("jobs", runs.namespace, WITHIN_S)
            # An end stays one.
            assert {runs.status(name)["phase"] for name in names} == {"Failed"}
            starts = operator.starts
    assert jobs.doubled == []
    assert "the pass failed" not in log.read_text(), log.read_text()[-5000:]
    told = ", ".join(f"{number} {kind}" for kind, number in sorted(proxy.faults.items()))
    print(
        f"{RUNS} runs, {sum(proxy.faults.values())} faults in {time.monotonic() - began:.0f} s "
        f"({told}), {starts} starts of the operator"
    )
    assert sum(proxy.faults.values()) > 10 * RUNS
