"""What a webhook is told of a run's transitions. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from arlow_operator.resource import Run
from arlow_operator.status import ConditionType, ProgressStatus, Status
from arlow_trainer.config.models import KIND
from arlow_trainer.config.shown_text import shown

TOLD: tuple[ConditionType, ...] = ("Succeeded", "Failed", "TrainingStalled")
LONGEST_MESSAGE = 1000
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
            "time": self.time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
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
    for kind in TOLD:
        earlier, now = before.condition(kind), after.condition(kind)
        if now is None or now.status != "True" or (earlier and earlier.status == "True"):
            continue
        progress = after.progress or ProgressStatus()
        yield Notification(
            event=kind,
            namespace=run.namespace,
            run=run.name,
            uid=run.uid,
            reason=now.reason,
            message=shown(now.message)[:LONGEST_MESSAGE],
            attempt=after.attempt.number if after.attempt else None,
            step=progress.step,
            total_steps=progress.total_steps,
            time=now.last_transition_time,
        )
