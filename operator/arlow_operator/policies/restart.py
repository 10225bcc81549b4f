"""An attempt that ended is followed by another, within the budgets."""

from __future__ import annotations

from datetime import timedelta

from arlow_operator.policies.causes import DISRUPTION, UNKNOWN, Cause, cause_of
from arlow_operator.policies.situation import Decision, DeleteJob, Situation, shortened
from arlow_operator.status import Restart, RestartsStatus, whole_second
from arlow_trainer.config import ExitCode
from arlow_trainer.config.cluster import MaxRestarts

TOTAL, WITHOUT_PROGRESS = "total", "withoutProgress"
# Progress gives these nothing back.
NEVER_RESET = (TOTAL, "cacheFull")
KEPT = 5
LONGEST_MESSAGE = 500
FIRST_BACKOFF, LONGEST_BACKOFF = timedelta(seconds=10), timedelta(seconds=300)


def restart_ended(situation: Situation) -> Decision | None:
    """Judges an attempt that has ended: the next one, or the end of the run."""
    cause = end_of_attempt(situation)
    return judge(situation, cause) if cause else None


def end_of_attempt(situation: Situation) -> Cause | None:
    """Returns why the attempt ended; None while it lives, or was not made yet."""
    attempt, job, pods = situation.attempt, situation.job, situation.pods
    if attempt is None or attempt.job_uid is None:
        return None
    has_checkpoint = situation.status.last_checkpoint is not None
    lost = [pod for pod in pods if situation.is_lost(pod)]
    ended = [pod for pod in pods if pod.end or pod.over]
    if ended or lost:
        return cause_of(pods, lost, has_checkpoint)
    if job is None or job.uid != attempt.job_uid:
        if any(not pod.over for pod in pods):
            return None
        return Cause(UNKNOWN, f"the Job {attempt.job_name} was deleted")
    if job.ended is not None:
        if any(not pod.over for pod in pods):
            return None
        if pods:
            return cause_of(pods, (), has_checkpoint)
        how = "is complete" if job.ended == "Complete" else "has failed"
        return Cause(UNKNOWN, f"the Job {job.name} {how}, and its pods are gone")
    return None


def judge(situation: Situation, cause: Cause) -> Decision:
    """Returns the next attempt, or the end of a run that no restart can help or has none left."""
    parsed, now = situation.run.parsed, whole_second(situation.now)
    limits = parsed.spec.failure_policy.max_restarts if parsed else MaxRestarts()
    restarts = situation.status.restarts
    spent = spent_after(restarts, cause, situation.status.checkpoint_step)
    exceeded = None if cause.fatal else _exceeded(spent, limits)
    if cause.fatal or exceeded:
        message = cause.message
        if exceeded:
            message = f"{exceeded}; the last end: {cause.message}"
        failed = situation.with_status(phase="Failed", message=message, completion_time=now)
        return Decision(failed, "RunCannotSucceed" if cause.fatal else "BudgetSpent", again_after=0)
    record = Restart(
        time=now,
        cause=cause.name,
        node=cause.node,
        rank=cause.rank,
        exit_code=cause.exit_code,
        message=shortened(cause.message, LONGEST_MESSAGE),
    )
    by_cause = restarts.by_cause | {cause.name: restarts.by_cause.get(cause.name, 0) + 1}
    begun = situation.begun(
        situation.attempt.number + 1 if situation.attempt else 1,
        phase="Restarting",
        message=f"restarts: {shortened(cause.message, LONGEST_MESSAGE)}",
        restarts=RestartsStatus(
            total=restarts.total + 1,
            by_cause=by_cause,
            spent=spent,
            checkpoint_step=situation.status.checkpoint_step,
            last=[record, *restarts.last][:KEPT],
        ),
    )
    job = situation.job
    action = DeleteJob(job.name, job.uid) if job else None
    return Decision(begun, "Restarting", action, again_after=0)


def spent_after(
    restarts: RestartsStatus, cause: Cause, checkpoint_step: int | None
) -> dict[str, int]:
    """Returns what is spent of each budget once an attempt has ended for a cause.

    Progress, a checkpoint above that of the last restart, gives all but `total` and `cacheFull`
    back; a disruption spends `total`, and that only where it brings no progress. To be kept out by
    another's lease is no lack of progress: the pod on a lost node that runs on may make some.
    """
    before = restarts.checkpoint_step
    progress = checkpoint_step is not None and (before is None or checkpoint_step > before)
    kept = {
        name: number
        for name, number in restarts.spent.items()
        if not progress or name in NEVER_RESET
    }
    names = [TOTAL, cause.name]
    if cause.name == DISRUPTION:
        names = [] if progress else [TOTAL]
    elif not progress and cause.exit_code != ExitCode.LEASE:
        names.append(WITHOUT_PROGRESS)
    return kept | {name: kept.get(name, 0) + 1 for name in names}


def backoff(restarts: RestartsStatus) -> timedelta:
    """Returns how long to wait after the last restart: not at all after progress."""
    if not restarts.last or restarts.last[0].cause == DISRUPTION:
        return timedelta(0)
    last = restarts.last[0]
    counted = last.cause if last.exit_code == ExitCode.LEASE else WITHOUT_PROGRESS
    fruitless = restarts.spent.get(counted, 0)
    if fruitless == 0:
        return timedelta(0)
    doublings = min(fruitless - 1, 10)
    return min(LONGEST_BACKOFF, FIRST_BACKOFF * (1 << doublings))


def _exceeded(spent: dict[str, int], limits: MaxRestarts) -> str:
    allowed = limits.model_dump(by_alias=True)
    for name, number in spent.items():
        if number > allowed[name]:
            times = "once" if number == 1 else f"{number} times"
            field = f"spec.failurePolicy.maxRestarts.{name} is {allowed[name]}"
            if name == TOTAL:
                return f"ended {times} in all, and {field}"
            if name == WITHOUT_PROGRESS:
                return f"ended {times} in a row without a new checkpoint, and {field}"
            return f"ended {times} for the cause {name}, and {field}"
    return ""
