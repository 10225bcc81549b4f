"""A run that cannot be is told so, and makes no attempt."""

from __future__ import annotations

from arlow_operator.policies.situation import Decision, Situation


def refuse_invalid(situation: Situation) -> Decision | None:
    """Holds a run that is not valid before its next attempt; one that runs is left running."""
    attempt = situation.attempt
    if not situation.run.mistakes or (attempt and (attempt.job_uid or situation.job)):
        return None
    return Decision(
        situation.with_status(phase="Pending", message=situation.run.mistakes), "Invalid"
    )
