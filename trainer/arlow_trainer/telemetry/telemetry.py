"""The one interface through which the trainer reports what happens, on every rank."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from threading import Lock
from typing import Any

from arlow_trainer.config.models import ArlowPretrain
from arlow_trainer.config.shown_text import redact_urls
from arlow_trainer.config.status import Phase, RunStatus
from arlow_trainer.storage.outbox import CLOSE_TIMEOUT_S
from arlow_trainer.telemetry.display import LiveDisplay
from arlow_trainer.telemetry.history import history_line, tracked_scalars
from arlow_trainer.telemetry.logs import configure_logging, logger
from arlow_trainer.telemetry.metrics import RunMetrics
from arlow_trainer.telemetry.publish import Publisher
from arlow_trainer.telemetry.reports import (
    CheckpointReport,
    Message,
    PhaseChanged,
    ResumeReport,
    StartReport,
    StatusState,
    StatusUpdate,
    StepReport,
    TelemetryOptions,
    mean_phase_seconds,
    scalars_of,
    status_of,
    updated,
)
from arlow_trainer.telemetry.scalars import SCALARS
from arlow_trainer.telemetry.server import TelemetryServer
from arlow_trainer.telemetry.times import utc_now

READERS_TIMEOUT_S: dict[Phase, float] = {"finished": 60.0, "stopped": 15.0, "failed": 20.0}
"""How long the end of a run waits until its readers have read it. A rank that fails has 30 s before
the launcher kills it."""


class Telemetry:
    """Metrics, status, logs and live display of one process of a run.

    Rank 0 reports for the run: it serves `/metrics` and `/status`, shows the live display and
    writes history and events. The other ranks only log. Nothing here touches a device, waits for
    a network or ends the run: a port in use or a store that refuses is a warning.
    """

    def __init__(
        self, run: ArlowPretrain, rank: int, ranks: int, options: TelemetryOptions
    ) -> None:
        self._rank = rank
        name = run.metadata.name
        configure_logging(name, rank, options.log_format)
        self._log = logger()
        self._lock = Lock()
        self._record_event = options.record_event
        self._skipped = 0
        self._phase_since = time.monotonic()
        now = utc_now()
        self._state = StatusState(run=name, started_at=now, peak_flops=options.peak_flops)
        self._metrics = RunMetrics(run, ranks, now, options)
        self._server: TelemetryServer | None = None
        self._live: LiveDisplay | None = None
        self._publisher: Publisher | None = None
        self._options = options
        self._track: Callable[[int, Mapping[str, float]], None] | None = None
        if rank == 0:
            self._event("start", ranks=ranks)
            if options.port:
                self._server = self._serve(options.port)
            if options.live and sys.stdout.isatty():
                self._live = LiveDisplay(self.status)

    def _serve(self, port: int) -> TelemetryServer | None:
        try:
            return TelemetryServer(
                port, self._metrics.registry, self.status, self._options.write_stacks
            )
        except OSError as error:
            self.warning(
                f"port {port}: /metrics and /status are not served: {error.strerror or error}; "
                "stop the process that listens there or choose another port"
            )
            return None

    def track(self, track: Callable[[int, Mapping[str, float]], None]) -> None:
        """From now on hands the scalars of read-outs and probes to `track`, too, with their step.

        It must not block, and is called on several threads.
        """
        self._track = track

    def status(self) -> RunStatus:
        """Returns the run's status now."""
        return status_of(self._state)

    def phase(self, phase: Phase, message: str = "") -> None:
        """The run entered a phase; with `failed`, the message says cause and remedy."""
        if self._rank == 0:
            if self._publisher is None and (
                self._options.publish_status or self._options.append_history
            ):
                # Not before: until then the store keeps the status of the process before.
                self._publisher = Publisher(self._options, self.status, self.warning)
            self._update(PhaseChanged(phase, redact_urls(message)))
            self._metrics.phase(phase)
            self._phase_since = time.monotonic()
            self._event("phase", phase=phase, message=message)
        elif phase != "failed":
            return
        fields = {"reason": message} if message else {}
        (self._log.error if phase == "failed" else self._log.info)(phase, **fields)

    def starting(self, seconds: Mapping[str, float], done: bool = False) -> None:
        """Parts of the start are over, all of them when it is `done`."""
        if self._rank != 0:
            return
        self._update(StartReport(seconds))
        if done:
            parts = {part: round(value, 2) for part, value in seconds.items()}
            logged = {f"{part}_s": value for part, value in parts.items()}
            self._log.info("started", **logged, total_s=round(sum(seconds.values()), 2))
            self._event("started", seconds=parts)

    def resumed(self, report: ResumeReport) -> None:
        """The run resumes from a checkpoint; call it before the first phase."""
        if self._rank != 0:
            return
        self._update(report)
        self._metrics.resumed(report)
        self._event("resume", step=report.checkpoint.step, url=report.checkpoint.url)

    def lost_step(self, text: str) -> None:
        """A step was lost to numbers that were not finite; the text says where they occurred."""
        if self._rank == 0:
            self._metrics.lost_step()
            self.warning(text)

    def step(self, report: StepReport) -> None:
        """A step was made. Cheap; call it for every step."""
        if self._rank != 0:
            return
        now = self._update(report)
        self._metrics.step(report, now)
        if report.readout is not None:
            self._log_scalars(report, now)
        elif len(self._state.recent) == 1:
            # So that a stall is noticed from step 1 on.
            self._metrics.scalars({"median_step_seconds": report.seconds})

    def _log_scalars(self, report: StepReport, now: datetime) -> None:
        values = scalars_of(self._state)
        self._metrics.scalars(values)
        phase_seconds = mean_phase_seconds(self._state.recent)
        if self._track is not None:
            self._track(report.step, tracked_scalars(values, phase_seconds))
        if self._publisher is not None:
            self._publisher.history(history_line(report.step, now, values, phase_seconds))
        if self._live is None:
            logged = {row.name: values.get(row.name) for row in SCALARS.values() if row.log}
            known = {name: value for name, value in logged.items() if value is not None}
            self._log.info("step", step=report.step, total_steps=report.total_steps, **known)

    def checkpoint(self, report: CheckpointReport) -> None:
        """A checkpoint was committed. May be called from any thread."""
        if self._rank != 0:
            return
        now = self._update(report)
        self._metrics.checkpoint(report, now)
        self._event("checkpoint", step=report.step, url=report.url)
        self._log.info(
            "checkpoint",
            step=report.step,
            url=report.url,
            seconds=report.seconds,
            bytes=report.bytes,
            stall_seconds=report.stall_seconds,
        )

    def checkpoint_failed(self, step: int, message: str) -> None:
        """A checkpoint could not be written. May be called from any thread.

        Not logged: its writer has done so, as on every rank.
        """
        self._metrics.checkpoint_failed()
        text = f"checkpoint of step {step} failed: {message}"
        self._update(Message(redact_urls(text)))
        self._event("warning", message=text)

    def probe(self, step: int, method: str, accuracy: float) -> None:
        """A checkpoint's frozen features were probed. May be called from any thread."""
        self._metrics.probe(method, accuracy)
        if self._track is not None:
            self._track(step, {f"probe_accuracy/{method}": accuracy})
        self._event("probe", step=step, method=method, accuracy=accuracy)
        self._log.info("probe", step=step, method=method, accuracy=accuracy)

    def skipped(self, name: str, reason: str) -> None:
        """A broken sample was left out."""
        with self._lock:
            self._skipped += 1
            self._metrics.count_up("skipped_samples", self._skipped)
        self._update(Message(redact_urls(f"skipped {name}: {reason}")))
        self._event("skip", name=name, reason=reason)
        self._log.warning("skipped", name=name, reason=reason)

    def warning(self, text: str) -> None:
        """Something that a reader should act on. May be called from any thread."""
        self._update(Message(redact_urls(text)))
        self._event("warning", message=text)
        self._log.warning(text)

    def close(self, within: Callable[[float], float] = lambda s: s) -> None:
        """Writes the last status and lines to the store, ends display and server.

        Waits until a Prometheus and a watcher that read the run until now have read how it ended.
        `within` shortens the seconds that a wait may take.
        """
        if self._live is not None:
            self._live.close()
            self._live = None
        self._event("end", phase=self._state.phase)
        if self._publisher is not None:
            self._publisher.close(within(CLOSE_TIMEOUT_S))
            self._publisher = None
        if self._server is not None:
            timeout_s = READERS_TIMEOUT_S.get(self._state.phase, 0.0)
            self._server.wait_for_readers(self._phase_since, within(timeout_s))
            self._server.close()
            self._server = None

    def _update(self, update: StatusUpdate) -> datetime:
        now = utc_now()
        with self._lock:
            self._state = updated(self._state, update, now)
        return now

    def _event(self, kind: str, **fields: Any) -> None:
        if self._rank == 0 and self._record_event is not None:
            self._record_event(kind, **fields)
