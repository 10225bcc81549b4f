"""The run's metrics for Prometheus: base units, labelled by run and, where needed, phase."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
)

from arlow_trainer.config.models import ArlowPretrain
from arlow_trainer.config.status import Phase
from arlow_trainer.telemetry.reports import (
    CheckpointReport,
    ResumeReport,
    StepReport,
    TelemetryOptions,
)
from arlow_trainer.telemetry.scalars import SCALARS, STEP_PHASES, ScalarValues

# A step takes from tens of milliseconds (a tiny tower) to a minute (a full one on few devices).
STEP_SECONDS_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300)
RUN_PHASES: tuple[Phase, ...] = get_args(Phase)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric that is not made of a scalar, without the suffix that its type adds."""

    name: str
    type: Literal["counter", "gauge", "histogram", "info"]
    unit: str
    section: Literal["Work done", "Learning", "Speed", "Checkpoints", "The run"]
    help: str


_STEP_PHASES = ", ".join(f"{name} ({text})" if text else name for name, text in STEP_PHASES.items())
_ROWS = (
    Metric(
        "arlow_steps",
        "counter",
        "steps",
        "Work done",
        "Optimisation steps, those that changed nothing included",
    ),
    Metric("arlow_images", "counter", "images", "Work done", "Images trained on, over all ranks"),
    Metric(
        "arlow_video_clips",
        "counter",
        "clips",
        "Work done",
        "Video clips trained on, over all ranks",
    ),
    Metric(
        "arlow_tokens",
        "counter",
        "tokens",
        "Work done",
        "Tokens of the samples trained on, visible and masked, over all ranks",
    ),
    Metric(
        "arlow_model_flops",
        "counter",
        "FLOPs",
        "Work done",
        "Model FLOPs: visible tokens through the tower, all tokens through the decoder, forward "
        "and backward; recomputation is not counted",
    ),
    Metric(
        "arlow_global_step",
        "gauge",
        "steps",
        "Work done",
        "Optimisation steps of the run so far, over all its processes",
    ),
    Metric(
        "arlow_planned_steps",
        "gauge",
        "steps",
        "Work done",
        "Steps that the run will have made at its end",
    ),
    Metric(
        "arlow_last_step_timestamp_seconds",
        "gauge",
        "s since 1970",
        "Work done",
        "End of the last step",
    ),
    Metric(
        "arlow_non_finite_steps",
        "counter",
        "steps",
        "Learning",
        "Steps that changed nothing and that no loss scale explains: a loss that is NaN or "
        "infinite, or gradients that are without a loss scale or at the lowest one. Counted at "
        "every step, before ten in a row end the run",
    ),
    Metric(
        "arlow_probe_accuracy",
        "gauge",
        "0 to 1",
        "Learning",
        "Test accuracy of frozen features of the last checkpoint probed, by method: knn, linear",
    ),
    Metric("arlow_step_seconds", "histogram", "s", "Speed", "Wall time of a step"),
    Metric(
        "arlow_step_phase_seconds",
        "counter",
        "s",
        "Speed",
        f"Time of the steps by phase: {_STEP_PHASES}",
    ),
    Metric("arlow_checkpoints", "counter", "checkpoints", "Checkpoints", "Checkpoints committed"),
    Metric(
        "arlow_checkpoint_failures",
        "counter",
        "checkpoints",
        "Checkpoints",
        "Checkpoints that could not be written",
    ),
    Metric(
        "arlow_checkpoint_last_success_timestamp_seconds",
        "gauge",
        "s since 1970",
        "Checkpoints",
        "Commit of the last checkpoint; after a resume, of the one that the run resumed from",
    ),
    Metric("arlow_checkpoint_step", "gauge", "steps", "Checkpoints", "Step of the last checkpoint"),
    Metric(
        "arlow_checkpoint_duration_seconds",
        "gauge",
        "s",
        "Checkpoints",
        "Time of the last checkpoint from capture to commit",
    ),
    Metric(
        "arlow_checkpoint_stall_seconds",
        "gauge",
        "s",
        "Checkpoints",
        "Time that training waited for the last checkpoint",
    ),
    Metric(
        "arlow_checkpoint_bytes", "gauge", "bytes", "Checkpoints", "Size of the last checkpoint"
    ),
    Metric(
        "arlow_checkpoint_interval_steps",
        "gauge",
        "steps",
        "Checkpoints",
        "Steps between two checkpoints; +Inf where they are due by time only",
    ),
    Metric(
        "arlow_run_phase",
        "gauge",
        "",
        "The run",
        f"1 for the phase that the run is in, 0 for the others: {', '.join(RUN_PHASES)}; stopped "
        "is as asked, before the last step",
    ),
    Metric(
        "arlow_run_start_timestamp_seconds",
        "gauge",
        "s since 1970",
        "The run",
        "Start of the process that trains the run: a new value is a restart",
    ),
    Metric(
        "arlow_run",
        "info",
        "",
        "The run",
        "Always 1; labels preset, precision (what it trains in), ranks, device, global_batch_size",
    ),
    Metric("arlow_build", "info", "", "The run", "Always 1; labels version, torch, python"),
)
METRICS = {row.name: row for row in _ROWS}


class RunMetrics:
    """The metrics of one run, in a registry of their own.

    Counters start at zero, so that their first increase is seen; a gauge appears with its first
    value, so that what does not apply (the loss scale in float32) is absent and not zero.
    """

    def __init__(
        self, run: ArlowPretrain, ranks: int, started_at: datetime, options: TelemetryOptions
    ) -> None:
        # `_created` would double every counter; the start of the process is a metric of its own.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._run = run.metadata.name
        self._gauges: dict[str, Gauge] = {}
        self._totals: dict[str, float] = {}

        self._phase_seconds = Counter(
            "arlow_step_phase_seconds",
            METRICS["arlow_step_phase_seconds"].help,
            ("run", "phase"),
            registry=self.registry,
        )
        for phase in STEP_PHASES:
            self._phase_seconds.labels(self._run, phase)
        self._counters = {
            row.name: self._counter(row.name, row.help)
            for row in METRICS.values()
            if row.type == "counter" and row.name != "arlow_step_phase_seconds"
        } | {
            row.name: self._counter(row.metric, row.help)
            for row in SCALARS.values()
            if row.metric and row.counter
        }
        self._step_seconds = Histogram(
            "arlow_step_seconds",
            METRICS["arlow_step_seconds"].help,
            ("run",),
            buckets=STEP_SECONDS_BUCKETS,
            registry=self.registry,
        ).labels(self._run)
        self._probe_accuracy = self._labelled_gauge("arlow_probe_accuracy", "method")
        run_phase = self._labelled_gauge("arlow_run_phase", "phase")
        self._run_phase = {phase: run_phase.labels(self._run, phase) for phase in RUN_PHASES}
        self.phase("starting")
        self._set("arlow_run_start_timestamp_seconds", started_at.timestamp())
        interval = run.spec.checkpoint.every_steps or math.inf
        self._set("arlow_checkpoint_interval_steps", interval)
        self._describe(run, ranks, options)

    def _labelled_gauge(self, name: str, label: str) -> Gauge:
        return Gauge(name, METRICS[name].help, ("run", label), registry=self.registry)

    def _counter(self, name: str, help_text: str) -> Counter:
        return Counter(name, help_text, ("run",), registry=self.registry).labels(self._run)

    def _set(self, name: str, value: float) -> None:
        self._set_gauge(name, METRICS[name].help, value)

    def _set_gauge(self, name: str, help_text: str, value: float) -> None:
        gauge = self._gauges.get(name)
        if gauge is None:
            family = Gauge(name, help_text, ("run",), registry=self.registry)
            gauge = self._gauges[name] = family.labels(self._run)
        gauge.set(value)

    def _describe(self, run: ArlowPretrain, ranks: int, options: TelemetryOptions) -> None:
        training = run.spec.training
        facts: Mapping[str, dict[str, str]] = {
            "arlow_build": {
                "version": _version("arlow-pretrain"),
                "torch": _version("torch"),
                "python": platform.python_version(),
            },
            "arlow_run": {
                "preset": training.preset,
                "precision": options.precision,
                "ranks": str(ranks),
                "device": options.device,
                "global_batch_size": str(run.spec.global_batch_size),
            },
        }
        for name, labels in facts.items():
            info = Info(name, METRICS[name].help, ("run",), registry=self.registry)
            info.labels(self._run).info(labels)

    def phase(self, phase: Phase) -> None:
        """The run entered a phase."""
        for name, gauge in self._run_phase.items():
            gauge.set(name == phase)

    def step(self, report: StepReport, now: datetime) -> None:
        """Counts a step."""
        counters = self._counters
        counters["arlow_steps"].inc()
        counters["arlow_images"].inc(report.images)
        counters["arlow_video_clips"].inc(report.clips)
        counters["arlow_tokens"].inc(report.tokens)
        counters["arlow_model_flops"].inc(report.flops)
        self._step_seconds.observe(report.seconds)
        for phase, seconds in report.phase_seconds.items():
            self._phase_seconds.labels(self._run, phase).inc(seconds)
        self._set_step(report.step, report.total_steps)
        self._set("arlow_last_step_timestamp_seconds", now.timestamp())

    def _set_step(self, step: int, total_steps: int) -> None:
        self._set("arlow_global_step", step)
        self._set("arlow_planned_steps", total_steps)

    def scalars(self, values: ScalarValues) -> None:
        """Sets the gauges of scalars, and counts the running totals among them up."""
        overflowed = values.get("loss_scale") is not None and not math.isfinite(
            values.get("grad_norm") or 0.0
        )
        for row in SCALARS.values():
            value = values.get(row.name)
            # A step that overflowed under a loss scale has no norm, and is counted as such.
            if row.metric is None or value is None or (row.name == "grad_norm" and overflowed):
                continue
            if row.counter:
                self.count_up(row.name, value)
            else:
                self._set_gauge(row.metric, row.help, value)

    def count_up(self, name: str, total: float) -> None:
        """Counts a scalar up to its running total."""
        before = self._totals.get(name, 0.0)
        self._counters[name].inc(max(0.0, total - before))
        self._totals[name] = max(before, total)

    def resumed(self, report: ResumeReport) -> None:
        """The run resumes from a checkpoint."""
        self._set_step(report.checkpoint.step, report.total_steps)
        self._set_last_checkpoint(report.checkpoint.step, report.checkpoint.time)
        # Overflows of the processes before are no new ones.
        self._totals["overflows"] = report.overflows

    def lost_step(self) -> None:
        """Counts a step lost to numbers that were not finite."""
        self._counters["arlow_non_finite_steps"].inc()

    def checkpoint(self, report: CheckpointReport, now: datetime) -> None:
        """Counts a committed checkpoint."""
        self._counters["arlow_checkpoints"].inc()
        self._set_last_checkpoint(report.step, now)
        self._set("arlow_checkpoint_duration_seconds", report.seconds)
        self._set("arlow_checkpoint_stall_seconds", report.stall_seconds)
        self._set("arlow_checkpoint_bytes", report.bytes)

    def _set_last_checkpoint(self, step: int, time: datetime) -> None:
        self._set("arlow_checkpoint_step", step)
        self._set("arlow_checkpoint_last_success_timestamp_seconds", time.timestamp())

    def checkpoint_failed(self) -> None:
        """Counts a checkpoint that could not be written."""
        self._counters["arlow_checkpoint_failures"].inc()

    def probe(self, method: str, accuracy: float) -> None:
        """Sets a probe's accuracy, 0 to 1."""
        self._probe_accuracy.labels(self._run, method).set(accuracy)


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
