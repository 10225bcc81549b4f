"""The end of a run: succeeded only when the trainer says so, and an end stays one."""

from __future__ import annotations

from datetime import datetime, timedelta

from arlow_operator.policies.situation import Decision, DeleteJob, Situation
from arlow_operator.status import ProgressStatus, Reason, whole_second
from arlow_trainer.config.object_names import RETRY_ANNOTATION


def succeed(situation: Situation) -> Decision | None:
    """Ends a run whose trainer said, in any attempt, that it is finished."""
    status = situation.status
    if status.finished:
        return None
    for pod in situation.seen.pods:
        ending = pod.end.ending if pod.end else None
        if pod.run_uid == situation.run.uid and ending and ending.finished:
            progress = status.progress or ProgressStatus()
            if ending.step is not None:
                done = {"step": ending.step, "total_steps": ending.step, "percent": 100.0}
                progress = progress.model_copy(update=done)
            message = f"finished after {ending.step:,} steps" if ending.step else "finished"
            done_status = situation.with_status(
                phase="Succeeded",
                message=message,
                progress=progress,
                completion_time=whole_second(situation.now),
            )
            return Decision(done_status, "Finished", again_after=0)
    return None


def stay_finished(situation: Situation) -> Decision | None:
    """Keeps an end, and clears up after it; a Failed run may be told to begin again."""
    status = situation.status
    if not status.finished:
        return None
    finished = status.condition("Finished")
    reason: Reason = finished.reason if finished else "Finished"
    if status.phase == "Failed" and _retry_asked(situation):
        number = (status.attempt.number if status.attempt else 0) + 1
        restarts = status.restarts.model_copy(update={"spent": {}})
        begun = situation.begun(
            number,
            phase="Pending",
            message="begins again, as asked",
            completion_time=None,
            restarts=restarts,
        )
        return Decision(begun, "Pending", again_after=0)
    for job in situation.own_jobs:
        pods = [pod for pod in situation.seen.pods if pod.job_uid == job.uid]
        if job.ended is None and not any(pod.end or pod.over for pod in pods):
            return Decision(status, reason, DeleteJob(job.name, job.uid))
    spec = situation.run.parsed.spec if situation.run.parsed else None
    ttl = spec.ttl_seconds_after_finished if spec else None
    if ttl is None or status.completion_time is None or not situation.own_jobs:
        return Decision(status, reason)
    left = status.completion_time + timedelta(seconds=ttl) - situation.now
    if left > timedelta(0):
        return Decision(status, reason, again_after=left.total_seconds())
    job = situation.own_jobs[-1]
    return Decision(status, reason, DeleteJob(job.name, job.uid), again_after=1)


def _retry_asked(situation: Situation) -> bool:
    """Whether the annotation of `arlow retry` is newer than the end."""
    ended = situation.status.completion_time
    try:
        asked = datetime.fromisoformat(situation.run.annotations.get(RETRY_ANNOTATION, ""))
    except ValueError:
        return False
    return asked.tzinfo is not None and (ended is None or asked > ended)
