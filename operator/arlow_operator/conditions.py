"""The conditions of a status, all derived from its phase, so that none contradicts another."""

from __future__ import annotations

from datetime import datetime

from arlow_operator.policies.situation import Decision
from arlow_operator.resource import Run
from arlow_operator.status import Condition, ConditionType, Reason, whole_second

Judged = tuple[bool, Reason, str]


def conditions_of(run: Run, decision: Decision, now: datetime) -> list[Condition]:
    """Returns the conditions; their times change only where their statuses do."""
    status, reason = decision.status, decision.reason
    phase, message = status.phase, status.message
    succeeded, failed = phase == "Succeeded", phase == "Failed"
    suspended = phase == "Suspended" and not decision.stopping
    ended: Reason = reason if status.finished else "NotFinished"
    judged: dict[ConditionType, Judged] = {
        "Validated": (not run.mistakes, "Invalid" if run.mistakes else "Valid", run.mistakes),
        "Running": (phase == "Running", reason, message),
        "Checkpointed": (
            (True, "CheckpointVerified", "")
            if status.last_checkpoint
            else (False, "NoCheckpoint", "")
        ),
        "TrainingStalled": (
            decision.stalled,
            "NoStep" if decision.stalled else "Stepping" if phase == "Running" else "NotTraining",
            message if decision.stalled else "",
        ),
        "Suspended": (
            suspended,
            reason if phase == "Suspended" else "NotSuspended",
            message if phase == "Suspended" else "",
        ),
        "Finished": (status.finished, ended, message if status.finished else ""),
        "Succeeded": (succeeded, ended, message if succeeded else ""),
        "Failed": (failed, ended, message if failed else ""),
    }
    before = {each.type: each for each in status.conditions}
    return [
        _condition(kind, each, before.get(kind), run.generation, now)
        for kind, each in judged.items()
    ]


def _condition(
    kind: ConditionType, judged: Judged, before: Condition | None, generation: int, now: datetime
) -> Condition:
    holds, reason, message = judged
    status = "True" if holds else "False"
    same = before is not None and before.status == status
    return Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message,
        last_transition_time=before.last_transition_time if before and same else whole_second(now),
        observed_generation=generation,
    )
