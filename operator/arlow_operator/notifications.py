"""What a webhook is told of a run's transitions. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from arlow_operator.resource import Run
from arlow_operator.status import Condition, ConditionType, ProgressStatus, Status, timestamp
from arlow_trainer.config.models import KIND
from arlow_trainer.config.shown_text import shown

TOLD: tuple[ConditionType, ...] = ("Succeeded", "Failed", "TrainingStalled")
LONGEST_MESSAGE = 1000
# Less than the hour for which the API keeps the events that tell what was sent.
SENT_WITHIN = timedelta(minutes=30)
_MENTION = re.compile(r"@(?=\w)")


@dataclass(frozen=True)
class Notification:
    """A transition of a run.

    Attributes:
        event: the condition that has become true.
        namespace, run, uid: of the object.
        reason, message: of the condition.
        attempt, step, total_steps: where the run was; None where that is not known.
        time: of the transition.
    """

    event: str
    namespace: str
    run: str
    uid: str
    reason: str
    message: str
    attempt: int | None
    step: int | None
    total_steps: int | None
    time: datetime

    def payload(self) -> dict[str, Any]:
        """Returns the JSON that a webhook is sent: `text` for chat systems, the rest for others."""
        found = {
            "text": self.text(),
            "event": self.event,
            "namespace": self.namespace,
            "run": self.run,
            "uid": self.uid,
            "reason": self.reason,
            "message": self.message,
            "attempt": self.attempt,
            "step": self.step,
            "totalSteps": self.total_steps,
            "time": timestamp(self.time),
        }
        return {key: value for key, value in found.items() if value is not None}

    def text(self) -> str:
        """Returns one paragraph for people, in the escapes of Slack's mrkdwn.

        A message is the trainer's own in parts: it must not call the members of a channel.
        """
        where = f" at step {self.step:,}" if self.step is not None else ""
        if where and self.total_steps is not None:
            where += f" of {self.total_steps:,}"
        words = f"{self.event}: {KIND} {self.namespace}/{self.run}{where}"
        if self.message:
            words += f": {self.message}"
        for character, escape in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
            words = words.replace(character, escape)
        # With a space of no width no chat system takes it for a name.
        return _MENTION.sub("@\u200b", words)


def notifications_of(run: Run, before: Status, after: Status) -> Iterator[Notification]:
    """Yields a notification for each condition among TOLD that has become true."""
    for condition in _true(after):
        earlier = before.condition(condition.type)
        if earlier is None or earlier.status != "True":
            yield _notification(run, after, condition)


def recent_notifications(run: Run, status: Status, now: datetime) -> Iterator[Notification]:
    """Yields the notifications of an earlier operator, which it may have been killed before
    sending."""
    for condition in _true(status):
        if now - condition.last_transition_time < SENT_WITHIN:
            yield _notification(run, status, condition)


def _true(status: Status) -> Iterator[Condition]:
    for kind in TOLD:
        condition = status.condition(kind)
        if condition and condition.status == "True":
            yield condition


def _notification(run: Run, status: Status, condition: Condition) -> Notification:
    progress = status.progress or ProgressStatus()
    return Notification(
        event=condition.type,
        namespace=run.namespace,
        run=run.name,
        uid=run.uid,
        reason=condition.reason,
        message=shown(condition.message)[:LONGEST_MESSAGE],
        attempt=status.attempt.number if status.attempt else None,
        step=progress.step,
        total_steps=progress.total_steps,
        time=condition.last_transition_time,
    )
