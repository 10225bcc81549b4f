"""Metrics of the operator itself, and those of runs that must outlive their pods.

What is told of a run is kept here while the run exists, and its series go with it.
"""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from arlow_operator.status import GoodputStatus, Phase, Status

RunKey = tuple[str, str]
PASS_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
KINDS = ("productive", "lost", "queued", "starting")


@dataclass(frozen=True)
class Told:
    """What is told of a run."""

    phase: Phase
    restarts: dict[str, int]
    goodput: GoodputStatus


class Runs(Collector):
    """The runs that exist, by namespace and name."""

    def __init__(self) -> None:
        self._told: dict[RunKey, Told] = {}

    def tell(self, key: RunKey, status: Status) -> None:
        """Takes note of a run's newest status."""
        goodput = status.goodput or GoodputStatus()
        self._told[key] = Told(status.phase, status.restarts.by_cause, goodput)

    def forget(self, key: RunKey) -> None:
        """Takes note that a run is gone."""
        self._told.pop(key, None)

    def keep_only(self, existing: Collection[RunKey]) -> None:
        """Takes note of all runs that exist."""
        for key in self._told.keys() - set(existing):
            del self._told[key]

    def __len__(self) -> int:
        return len(self._told)

    def collect(self) -> Iterator[Metric]:
        """Yields the series."""
        # A scrape is on a thread of its own.
        told = dict(self._told)
        phases = GaugeMetricFamily("arlow_operator_runs", "Runs by phase.", labels=["phase"])
        for phase, number in sorted(Count(each.phase for each in told.values()).items()):
            phases.add_metric([phase], number)
        yield phases
        names = ["namespace", "run"]
        restarts = CounterMetricFamily(
            "arlow_operator_run_restarts", "Restarts of a run by cause.", labels=[*names, "cause"]
        )
        goodput = CounterMetricFamily(
            "arlow_operator_run_goodput_seconds",
            "Where a run's time went; a restart turns productive seconds into lost ones.",
            labels=[*names, "kind"],
        )
        for key, each in sorted(told.items()):
            for cause, number in sorted(each.restarts.items()):
                restarts.add_metric([*key, cause], number)
            for kind in KINDS:
                goodput.add_metric([*key, kind], getattr(each.goodput, f"{kind}_seconds"))
        yield restarts
        yield goodput


class Metrics:
    """All series of the operator, and the registry that holds them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.runs = Runs()
        self.registry.register(self.runs)
        self._passes = Histogram(
            "arlow_operator_pass_duration_seconds",
            "Duration of passes over a run, by how they ended (done, failed).",
            ["result"],
            buckets=PASS_BUCKETS,
            registry=self.registry,
        )
        self._requests = Counter(
            "arlow_operator_api_requests",
            "Requests to the Kubernetes API by verb and HTTP code (0: no answer); watches are not "
            "among them.",
            ["verb", "code"],
            registry=self.registry,
        )
        self._notifications = Counter(
            "arlow_operator_notifications",
            "Notifications of the webhook by what became of them (delivered, failed).",
            ["result"],
            registry=self.registry,
        )
        for result in ("delivered", "failed"):
            self._notifications.labels(result)

    def watch(self, queue_depth: Callable[[], int], full_pass_age: Callable[[], float]) -> None:
        """Registers what is asked for at each scrape."""
        depth = Gauge(
            "arlow_operator_queue_depth", "Runs that wait for a pass.", registry=self.registry
        )
        depth.set_function(queue_depth)
        age = Gauge(
            "arlow_operator_last_full_pass_age_seconds",
            "Seconds since all runs were looked at; the liveness probe fails above 180.",
            registry=self.registry,
        )
        age.set_function(full_pass_age)

    def passed(self, seconds: float, *, failed: bool) -> None:
        """Counts a pass over a run."""
        self._passes.labels("failed" if failed else "done").observe(seconds)

    def requested(self, verb: str, code: int) -> None:
        """Counts a request to the API."""
        self._requests.labels(verb, str(code)).inc()

    def notified(self, result: str) -> None:
        """Counts a notification, `delivered` or `failed`."""
        self._notifications.labels(result).inc()
