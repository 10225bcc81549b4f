"""Metrics of the operator's process, and the registry that holds them and those of runs."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from arlow_operator.run_metrics import Runs

PASS_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
RESOURCES = ("runs", "jobs", "pods")


class Metrics:
    """All series of the operator, and the registry that holds them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.runs = Runs()
        self.registry.register(self.runs)
        info = Gauge("arlow_operator_info", "Always 1.", ["version"], registry=self.registry)
        info.labels(version("arlow-pretrain")).set(1)
        self._leads = Gauge(
            "arlow_operator_leader",
            "1 while this operator looks after runs, 0 while it waits for the Lease.",
            registry=self.registry,
        )
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
        self._events = Counter(
            "arlow_operator_watch_events",
            "Objects that the watches told of, by what is watched (runs, jobs, pods).",
            ["resource"],
            registry=self.registry,
        )
        # A counter that begins at 1 has no increase.
        for result in ("done", "failed"):
            self._passes.labels(result)
        for resource in RESOURCES:
            self._events.labels(resource)

    def lead(self, queue_depth: Callable[[], int], full_pass_age: Callable[[], float]) -> None:
        """Tells that this operator looks after runs; registers what is asked for at each scrape."""
        self._leads.set(1)
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
        self._unlike = Gauge(
            "arlow_operator_definition_differing_fields",
            "Fields of ArlowPretrain that the cluster's definition has and this version has not, "
            "or the other way round.",
            registry=self.registry,
        )

    def passed(self, seconds: float, *, failed: bool) -> None:
        """Counts a pass over a run."""
        self._passes.labels("failed" if failed else "done").observe(seconds)

    def requested(self, verb: str, code: int) -> None:
        """Counts a request to the API."""
        self._requests.labels(verb, str(code)).inc()

    def notified(self, result: str) -> None:
        """Counts a notification, `delivered` or `failed`."""
        self._notifications.labels(result).inc()

    def saw(self, resource: str) -> None:
        """Counts an object that a watch told of: of `runs`, `jobs` or `pods`."""
        self._events.labels(resource).inc()

    def compared(self, differing_fields: int) -> None:
        """Notes in how many fields the cluster's definition and this version differ."""
        self._unlike.set(differing_fields)
