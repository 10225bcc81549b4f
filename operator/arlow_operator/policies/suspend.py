"""`suspend: true` ends the attempt with a checkpoint, and holds the next one."""

from __future__ import annotations

from arlow_operator.policies.situation import Decision, DeleteJob, Situation


def suspend(situation: Situation) -> Decision | None:
    """Deletes the Job of a suspended run; its pods save a checkpoint within their grace."""
    parsed, attempt = situation.run.parsed, situation.attempt
    if parsed is None or not parsed.spec.suspend:
        return None
    status = situation.with_status(phase="Suspended", message="suspended")
    if attempt and (attempt.job_uid or situation.job):
        status = situation.begun(attempt.number + 1, phase="Suspended", message="suspended")
    if situation.own_jobs:
        job = situation.own_jobs[0]
        status = status.model_copy(update={"message": "stops, with a checkpoint"})
        return Decision(
            status, "Stopping", DeleteJob(job.name, job.uid), again_after=0, stopping=True
        )
    if situation.ending_pods:
        status = status.model_copy(update={"message": "stops, with a checkpoint"})
        return Decision(status, "Stopping", again_after=2, stopping=True)
    if status.last_checkpoint:
        message = f"suspended; goes on from step {status.checkpoint_step:,}"
        status = status.model_copy(update={"message": message})
    return Decision(status, "Suspended")
