"""What a run reports while it runs: metrics, status, logs, live display, history."""

from arlow_trainer.telemetry.history import HISTORY_FILE, HistoryPoint, read_history
from arlow_trainer.telemetry.reports import (
    CheckpointReport,
    LogFormat,
    ResumeReport,
    StepReport,
    TelemetryOptions,
)
from arlow_trainer.telemetry.scalars import STEP_PHASES, ScalarValues
from arlow_trainer.telemetry.status_source import STATUS_FILE
from arlow_trainer.telemetry.telemetry import Telemetry

__all__ = [
    "HISTORY_FILE",
    "STATUS_FILE",
    "STEP_PHASES",
    "CheckpointReport",
    "HistoryPoint",
    "LogFormat",
    "ResumeReport",
    "ScalarValues",
    "StepReport",
    "Telemetry",
    "TelemetryOptions",
    "read_history",
]
