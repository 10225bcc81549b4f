"""The run's metrics for Prometheus: base units, labelled by run and, where needed, phase."""

from __future__ import annotations

import math
import platform
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import get_args

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
    STEP_PHASES,
    CheckpointReport,
    Readout,
    Resumed,
    StepReport,
    TelemetryOptions,
)

# A step takes from tens of milliseconds (a tiny tower) to a minute (a full one on few devices).
STEP_SECONDS_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300)
RUN_PHASES: tuple[Phase, ...] = get_args(Phase)


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
        self._peak_flops = options.peak_flops
        self._overflows = 0
        self._skipped = 0
        self._window_flops = 0.0
        self._window_seconds = 0.0
        self._gauges: dict[str, Gauge] = {}

        self._images = self._counter("arlow_images", "Images trained on")
        self._clips = self._counter("arlow_video_clips", "Video clips trained on")
        self._tokens = self._counter("arlow_tokens", "Visible and masked tokens trained on")
        self._flops = self._counter("arlow_model_flops", "Model FLOPs, recomputation not counted")
        self._steps = self._counter("arlow_steps", "Optimisation steps, overflowed ones included")
        self._overflow_steps = self._counter(
            "arlow_overflow_steps", "Steps skipped because a gradient overflowed"
        )
        self._non_finite = self._counter(
            "arlow_non_finite_steps",
            "Steps lost to a NaN or Inf that no loss scale explains",
        )
        self._skipped_samples = self._counter(
            "arlow_skipped_samples", "Broken samples left out and replaced"
        )
        self._checkpoints = self._counter("arlow_checkpoints", "Checkpoints committed")
        self._checkpoint_failures = self._counter(
            "arlow_checkpoint_failures", "Checkpoints that could not be written"
        )
        self._phase_seconds = Counter(
            "arlow_step_phase_seconds",
            "Time of the steps by what it was spent on; data is the wait for the loader",
            ("run", "phase"),
            registry=self.registry,
        )
        for phase in STEP_PHASES:
            self._phase_seconds.labels(self._run, phase)
        self._step_seconds = Histogram(
            "arlow_step_seconds",
            "Wall time of a step",
            ("run",),
            buckets=STEP_SECONDS_BUCKETS,
            registry=self.registry,
        ).labels(self._run)
        self._probe_accuracy = Gauge(
            "arlow_probe_accuracy",
            "Accuracy of a probe on the frozen features of the last checkpoint probed",
            ("run", "method"),
            registry=self.registry,
        )
        run_phase = Gauge(
            "arlow_run_phase",
            "1 for the phase that the run is in, 0 for the others",
            ("run", "phase"),
            registry=self.registry,
        )
        self._run_phase = {phase: run_phase.labels(self._run, phase) for phase in RUN_PHASES}
        self.phase("starting")

        self._set(
            "arlow_run_start_timestamp_seconds",
            "Start of the process that trains the run",
            started_at.timestamp(),
        )
        self._set(
            "arlow_checkpoint_interval_steps",
            "Steps between two checkpoints",
            run.spec.checkpoint.every_steps,
        )
        self._describe(run, ranks, options)

    def _counter(self, name: str, help_text: str) -> Counter:
        return Counter(name, help_text, ("run",), registry=self.registry).labels(self._run)

    def _set(self, name: str, help_text: str, value: float | None) -> None:
        if value is None:
            return
        gauge = self._gauges.get(name)
        if gauge is None:
            family = Gauge(name, help_text, ("run",), registry=self.registry)
            gauge = self._gauges[name] = family.labels(self._run)
        gauge.set(value)

    def _describe(self, run: ArlowPretrain, ranks: int, options: TelemetryOptions) -> None:
        build = Info("arlow_build", "Versions of the trainer", ("run",), registry=self.registry)
        build.labels(self._run).info(
            {
                "version": _version("arlow-pretrain"),
                "torch": _version("torch"),
                "python": platform.python_version(),
            }
        )
        training = run.spec.training
        about = Info("arlow_run", "What the run is", ("run",), registry=self.registry)
        about.labels(self._run).info(
            {
                "preset": training.preset,
                "precision": options.precision,
                "ranks": str(ranks),
                "device": options.device,
                "global_batch_size": str(run.spec.global_batch_size),
            }
        )

    def phase(self, phase: Phase) -> None:
        """The run entered a phase."""
        for name, gauge in self._run_phase.items():
            gauge.set(name == phase)

    def step(self, report: StepReport, now: datetime) -> None:
        """Counts a step, and its read-out where it has one."""
        self._steps.inc()
        self._images.inc(report.images)
        self._clips.inc(report.clips)
        self._tokens.inc(report.tokens)
        self._flops.inc(report.flops)
        self._step_seconds.observe(report.seconds)
        for phase, seconds in report.phase_seconds.items():
            self._phase_seconds.labels(self._run, phase).inc(seconds)
        self._progress(report.step, report.total_steps)
        self._set("arlow_last_step_timestamp_seconds", "End of the last step", now.timestamp())
        self._window_flops += report.flops
        self._window_seconds += report.seconds
        if report.readout is not None:
            self._read_out(report.readout)

    def _progress(self, step: int, total_steps: int) -> None:
        self._set("arlow_global_step", "Optimisation steps of the run so far", step)
        self._set("arlow_planned_steps", "Steps that the run will have made", total_steps)

    def resumed(self, start: Resumed) -> None:
        """The run goes on from a checkpoint."""
        self._progress(start.checkpoint.step, start.total_steps)
        self._committed(start.checkpoint.step, start.checkpoint.time)
        # What the run brings along from before this process is no new overflow.
        self._overflows = start.overflows

    def lost_step(self) -> None:
        """Counts a step lost to numbers that were not finite."""
        self._non_finite.inc()

    def _read_out(self, readout: Readout) -> None:
        self._set("arlow_loss", "Loss, mean over samples", readout.loss)
        self._set("arlow_image_loss", "Loss of the images", readout.image_loss)
        self._set("arlow_video_loss", "Loss of the video clips", readout.video_loss)
        self._set("arlow_learning_rate", "Learning rate", readout.learning_rate)
        # A step that overflowed under a loss scale has no norm, and is counted as such.
        overflowed = readout.loss_scale is not None and not math.isfinite(readout.grad_norm)
        if not overflowed:
            self._set("arlow_gradient_norm", "Gradient norm before clipping", readout.grad_norm)
        self._set(
            "arlow_gradient_norm_max",
            "Largest gradient norm before clipping since the last read-out",
            readout.grad_norm_max,
        )
        self._set("arlow_loss_scale", "Dynamic loss scale of fp16", readout.loss_scale)
        self._set(
            "arlow_max_attention_logit",
            "Largest absolute attention logit of the tower on one sample",
            readout.max_attention_logit,
        )
        self._set(
            "arlow_rank_skew_seconds",
            "Forward and backward time of the slowest rank less that of the fastest",
            readout.rank_skew_seconds,
        )
        self._set(
            "arlow_gpu_memory_bytes",
            "Peak GPU memory allocated by rank 0",
            readout.gpu_memory_bytes,
        )
        self._overflow_steps.inc(max(0, readout.overflows - self._overflows))
        self._overflows = readout.overflows
        if readout.skipped_samples is not None:
            self.skipped(readout.skipped_samples)
        if self._peak_flops and self._window_seconds > 0:
            self._set(
                "arlow_model_flops_utilization_ratio",
                "Model FLOPs per second over the devices' peak",
                self._window_flops / self._window_seconds / self._peak_flops,
            )
        self._window_flops = self._window_seconds = 0.0

    def outlook(self, median_step_seconds: float | None, eta_seconds: float | None) -> None:
        """Sets what follows from the recent steps."""
        self._set(
            "arlow_median_step_seconds", "Median time of the recent steps", median_step_seconds
        )
        self._set("arlow_eta_seconds", "Time until the last step at that median", eta_seconds)

    def skipped(self, total: int) -> None:
        """Counts skipped samples up to `total` since the process's start."""
        self._skipped_samples.inc(max(0, total - self._skipped))
        self._skipped = max(self._skipped, total)

    def checkpoint(self, report: CheckpointReport, now: datetime) -> None:
        """Counts a committed checkpoint."""
        self._checkpoints.inc()
        self._committed(report.step, now)
        self._set(
            "arlow_checkpoint_duration_seconds",
            "Time of the last checkpoint from capture to commit",
            report.seconds,
        )
        self._set(
            "arlow_checkpoint_stall_seconds",
            "Time that training waited for the last checkpoint",
            report.stall_seconds,
        )
        self._set("arlow_checkpoint_bytes", "Size of the last checkpoint", report.bytes)

    def _committed(self, step: int, time: datetime) -> None:
        self._set("arlow_checkpoint_step", "Step of the last checkpoint", step)
        self._set(
            "arlow_checkpoint_last_success_timestamp_seconds",
            "Commit of the last checkpoint",
            time.timestamp(),
        )

    def probe(self, method: str, accuracy: float) -> None:
        """Sets a probe's accuracy, 0 to 1."""
        self._probe_accuracy.labels(self._run, method).set(accuracy)

    def checkpoint_failed(self) -> None:
        """Counts a checkpoint that could not be written."""
        self._checkpoint_failures.inc()


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
