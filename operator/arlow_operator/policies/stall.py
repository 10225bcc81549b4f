"""A run whose process lives and makes no step."""

from __future__ import annotations

from datetime import datetime, timedelta

from arlow_operator.policies.causes import Cause
from arlow_operator.policies.restart import judge
from arlow_operator.policies.situation import Decision, Situation, StopPods, WriteStacks

STALLED = "stalled"
# For the trainer to write the stacks, and its log, before it is stopped.
EVIDENCE_SECONDS = 5.0


def judge_stall(situation: Situation) -> Decision | None:
    """Reports a step that is long overdue, keeps the stacks, and then restarts the run.

    The clock stands while the trainer loads, saves or cannot be asked.
    """
    parsed, reported, status = situation.run.parsed, situation.seen.reported, situation.status
    attempt, progress = situation.attempt, status.progress
    told = reported.status if reported else None
    if parsed is None or attempt is None or attempt.job_uid is None or progress is None:
        return None
    policy = parsed.spec.failure_policy.stall
    if told is None or told.phase != "training" or policy.action == "None":
        return None
    limit = max(policy.factor * (told.median_step_seconds or 0), policy.min_seconds)
    since = progress.step_time
    if since is None or situation.now - since < timedelta(seconds=limit):
        return None
    message = (
        f"no step after {told.step:,} for {(situation.now - since).total_seconds():,.0f} s, and "
        f"{limit:,.0f} s are allowed (spec.failurePolicy.stall)"
    )
    if status.run_url:
        message += f"; its stacks go to {status.run_url}/logs/{attempt.number}/"
    every = situation.settings.progress_seconds
    reported_at = _reported_at(situation)
    if reported_at is None:
        pod = next((pod for pod in situation.pods if pod.running and pod.address), None)
        stalled = situation.with_status(phase="Running", message=message)
        action = WriteStacks(pod.address) if pod else None
        return Decision(stalled, "Training", action, again_after=EVIDENCE_SECONDS, stalled=True)
    left = reported_at + timedelta(seconds=EVIDENCE_SECONDS) - situation.now
    if policy.action == "Report" or left > timedelta(0):
        again = every if policy.action == "Report" else left.total_seconds()
        return Decision(status, "Training", again_after=again, stalled=True)
    nodes = sorted({pod.node for pod in situation.pods if pod.node})
    decision = judge(situation, Cause(STALLED, message, node=nodes[0] if nodes else None))
    pods = live_pods(situation, attempt.job_uid)
    return Decision(decision.status, decision.reason, StopPods(pods), again_after=0)


def live_pods(situation: Situation, job_uid: str) -> tuple[tuple[str, str], ...]:
    """Returns name and uid of a Job's pods that nobody has asked to end."""
    return tuple(
        (pod.name, pod.uid)
        for pod in situation.seen.pods
        if pod.job_uid == job_uid and pod.deleted is None and pod.end is None and not pod.over
    )


def _reported_at(situation: Situation) -> datetime | None:
    """Returns when the stall was reported; None where it was not yet."""
    stalled = situation.status.condition("TrainingStalled")
    return stalled.last_transition_time if stalled and stalled.status == "True" else None
