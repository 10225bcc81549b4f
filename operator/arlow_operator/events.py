"""The events that tell of a run's transitions. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from arlow_operator.resource import MANAGER, Run
from arlow_operator.status import Status
from arlow_trainer.config.models import API_VERSION, KIND

LONGEST_MESSAGE = 1000


def events_of(run: Run, before: Status, after: Status) -> Iterator[dict[str, Any]]:
    """Yields an event for a new phase, and one for training that has begun to stall."""
    if before.phase != after.phase:
        moments = [each.last_transition_time for each in after.conditions]
        kind = "Warning" if after.phase in ("Restarting", "Failed") else "Normal"
        words = after.message or f"the run is {after.phase}"
        yield _event(run, kind, after.phase, words, max(moments, default=run.created))
    stalled = after.condition("TrainingStalled")
    earlier = before.condition("TrainingStalled")
    if stalled and stalled.status == "True" and (earlier is None or earlier.status != "True"):
        time = stalled.last_transition_time
        yield _event(run, "Warning", "TrainingStalled", stalled.message, time)


def _event(run: Run, kind: str, reason: str, words: str, moment: datetime) -> dict[str, Any]:
    time = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{run.name}-", "namespace": run.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": run.name,
            "namespace": run.namespace,
            "uid": run.uid,
        },
        "type": kind,
        "reason": reason,
        "message": words[:LONGEST_MESSAGE],
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
        "source": {"component": MANAGER},
        "reportingComponent": MANAGER,
    }
