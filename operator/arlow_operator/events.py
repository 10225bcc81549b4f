"""The events that tell of a run's transitions, and of what a webhook was told. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from arlow_operator.notifications import Notification
from arlow_operator.resource import MANAGER, Run
from arlow_operator.status import Status, timestamp
from arlow_trainer.config.models import API_VERSION, KIND

LONGEST_MESSAGE = 1000
NOTIFIED = "Notified"


def events_of(run: Run, before: Status, after: Status, now: datetime) -> Iterator[dict[str, Any]]:
    """Yields an event for a new phase, and one for training that has begun to stall."""
    if before.phase != after.phase:
        kind = "Warning" if after.phase in ("Restarting", "Failed") else "Normal"
        words = after.message or f"the run is {after.phase}"
        yield _event(run.namespace, run.name, run.uid, kind, after.phase, words, now)
    stalled = after.condition("TrainingStalled")
    earlier = before.condition("TrainingStalled")
    if stalled and stalled.status == "True" and (earlier is None or earlier.status != "True"):
        time = stalled.last_transition_time
        words = stalled.message
        yield _event(run.namespace, run.name, run.uid, "Warning", "TrainingStalled", words, time)


def delivery_event(sent: Notification) -> dict[str, Any]:
    """Returns the event that tells that a webhook was told of a transition."""
    words = _delivered(sent)
    return _event(sent.namespace, sent.run, sent.uid, "Normal", NOTIFIED, words, sent.time)


def is_delivered(notification: Notification, events: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a webhook was told of a transition, by the events about the run."""
    words = _delivered(notification)
    return any(each["reason"] == NOTIFIED and each.get("message") == words for each in events)


def _delivered(notification: Notification) -> str:
    return f"the webhook was told of {notification.event} at {timestamp(notification.time)}"


def _event(
    namespace: str, name: str, uid: str, kind: str, reason: str, words: str, moment: datetime
) -> dict[str, Any]:
    time = timestamp(moment)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{name}-", "namespace": namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": name,
            "namespace": namespace,
            "uid": uid,
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
