"""From the status of an `ArlowPretrain` object to the status that a watcher shows. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from arlow_trainer.cluster.fields import section
from arlow_trainer.config.status import LastCheckpoint, Phase, RunStatus

NO_STATUS = "no status yet: does the operator look after this namespace?"
PHASES: Mapping[str, Phase] = {
    "Pending": "starting",
    "Queued": "starting",
    "Starting": "starting",
    "Running": "training",
    "Restarting": "starting",
    "Suspended": "stopped",
    "Succeeded": "finished",
    "Failed": "failed",
}


def run_status(body: Mapping[str, Any]) -> RunStatus:
    """Returns what an object's status says of its run, as the operator wrote it last.

    The object's phase, its restarts and its message stand in the message. Fields of another form
    than this version knows are left out.
    """
    name = body["metadata"]["name"]
    status = section(body, "status")
    progress, attempt = section(status, "progress"), section(status, "attempt")
    fields = {
        "startedAt": attempt.get("startTime"),
        "step": progress.get("step"),
        "totalSteps": progress.get("totalSteps"),
        "loss": progress.get("loss"),
        "imagesPerSecond": progress.get("imagesPerSecond"),
        "mfu": progress.get("mfu"),
        "etaSeconds": progress.get("etaSeconds"),
        "lastStepTime": progress.get("stepTime"),
    }
    phase = str(status.get("phase") or "Pending")
    found = RunStatus(run=name, phase=PHASES.get(phase, "starting"), message=_message(status))
    for field, value in fields.items():
        found = _with_field(found, field, value)
    try:
        last = LastCheckpoint.model_validate(section(status, "lastCheckpoint"))
    except ValidationError:
        return found
    return found.model_copy(update={"last_checkpoint": last})


def object_message(body: Mapping[str, Any]) -> str:
    """Returns the phase of an object, its restarts and its message, as one text."""
    return _message(section(body, "status"))


def _message(status: Mapping[str, Any]) -> str:
    if not status:
        return NO_STATUS
    number = section(status, "attempt").get("number")
    attempt = f", attempt {number}" if number else ""
    words = f"{status.get('phase', 'Pending')}{attempt}"
    if told := status.get("message"):
        words += f": {told}"
    return words


def _with_field(status: RunStatus, field: str, value: object) -> RunStatus:
    if value is None:
        return status
    try:
        return RunStatus.model_validate(status.model_dump(by_alias=True) | {field: value})
    except ValidationError:
        return status
