"""A run that starts too late, or takes too long, ends."""

from __future__ import annotations

from datetime import timedelta

from arlow_operator.policies.situation import Decision, Situation
from arlow_operator.status import whole_second


def deadline(situation: Situation) -> Decision | None:
    """Fails a run that is over one of its deadlines; its Job is deleted by the next pass."""
    parsed, status, now = situation.run.parsed, situation.status, situation.now
    if parsed is None:
        return None
    message = ""
    limit = parsed.spec.active_deadline_seconds
    if limit and status.start_time and now - status.start_time > timedelta(seconds=limit):
        message = f"not finished within spec.activeDeadlineSeconds, {limit} s over all attempts"
    limit = parsed.spec.start_deadline_seconds
    job = situation.job
    # Not the Job's creation: it may have waited in a queue.
    started = job.started if job and not job.suspended else None
    if (
        limit
        and status.phase == "Starting"
        and started
        and now - started > timedelta(seconds=limit)
    ):
        message = f"no step within spec.startDeadlineSeconds, {limit} s: {status.message}"
    if not message:
        return None
    failed = situation.with_status(
        phase="Failed", message=message, completion_time=whole_second(now)
    )
    return Decision(failed, "DeadlineExceeded", again_after=0)
