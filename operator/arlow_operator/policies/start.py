"""The next attempt is made when nothing of an earlier one runs any more."""

from __future__ import annotations

from typing import Literal

from arlow_operator.policies.placement import nodes_to_avoid
from arlow_operator.policies.restart import backoff
from arlow_operator.policies.situation import (
    CreateAttempt,
    Decision,
    DeleteJob,
    Situation,
    StopPods,
)
from arlow_operator.policies.stall import STALLED, live_pods
from arlow_operator.status import Phase, Reason, Status, whole_second

# Nothing tells when a request that was refused would be granted.
REFUSED_AGAIN_S = 10.0


def _stalled(status: Status) -> bool:
    """Whether the last attempt was ended since it made no steps."""
    return bool(status.restarts.last) and status.restarts.last[0].cause == STALLED


def choose_number(situation: Situation) -> Decision | None:
    """Gives a run without an attempt its number, or adopts the Job that it has.

    A run may have lost its status: the highest number seen is then the last one.
    """
    if situation.attempt is not None:
        return None
    live = [job for job in situation.own_jobs if job.ended is None]
    numbers = [job.attempt for job in situation.own_jobs]
    numbers += [pod.attempt for pod in situation.seen.pods if pod.run_uid == situation.run.uid]
    highest = max(numbers, default=0)
    number = live[0].attempt if live else highest + 1
    begun = situation.begun(
        number,
        phase="Pending",
        message="the first attempt is made" if number == 1 else f"attempt {number} is made",
        start_time=situation.status.start_time or whole_second(situation.now),
    )
    return Decision(begun, "Pending", again_after=0)


def delete_others(situation: Situation) -> Decision | None:
    """Deletes live Jobs of the run beside its attempt's, as a restored status may leave them."""
    attempt = situation.attempt
    if attempt is None or attempt.job_uid is None:
        return None
    for job in situation.own_jobs:
        if job.uid != attempt.job_uid and job.ended is None:
            action = DeleteJob(job.name, job.uid)
            return Decision(situation.status, "Starting", action, again_after=0)
    return None


def make_attempt(situation: Situation) -> Decision | None:
    """Makes the attempt that the status has announced."""
    attempt, parsed, status = situation.attempt, situation.run.parsed, situation.status
    if attempt is None or attempt.job_uid is not None:
        return None
    phase: Phase = "Restarting" if status.phase == "Restarting" else "Pending"
    held: Reason = "Restarting" if phase == "Restarting" else "Pending"
    job = situation.job
    if job is not None:
        made = attempt.model_copy(
            update={
                "job_uid": job.uid,
                "generation": job.generation,
                "image": job.image,
                "start_time": job.created,
            }
        )
        message = f"attempt {attempt.number} starts"
        begun: Literal["Queued", "Starting"] = "Queued" if job.suspended else "Starting"
        starting = situation.with_status(attempt=made, phase=begun, message=message)
        return Decision(starting, begun, again_after=1)
    if parsed is None:
        return None
    for old in situation.own_jobs:
        # A stall's pods were stopped with it, unless the operator was killed just then.
        hanging = live_pods(situation, old.uid) if _stalled(status) else ()
        clearing = StopPods(hanging) if hanging else DeleteJob(old.name, old.uid)
        return Decision(situation.with_status(phase=phase), held, clearing, again_after=0)
    blocking = [job.name for job in situation.seen.jobs if job.name == attempt.job_name]
    blocking += [pod.name for pod in situation.ending_pods]
    if blocking:
        names = ", ".join(blocking[:3])
        message = f"attempt {attempt.number} waits until {names} has ended{situation.end_before}"
        waiting = situation.with_status(phase=phase, message=message)
        return Decision(waiting, "Stopping", again_after=2, stopping=True)
    if status.restarts.last:
        left = status.restarts.last[0].time + backoff(status.restarts) - situation.now
        if left.total_seconds() > 0:
            return Decision(
                situation.with_status(phase="Restarting"),
                "Restarting",
                again_after=left.total_seconds(),
            )
    image = parsed.spec.image or attempt.image or situation.settings.image
    avoided = nodes_to_avoid(status.restarts, situation.now)
    action = CreateAttempt(attempt.number, image, avoided)
    if obstacle := situation.seen.obstacle:
        message = f"cannot start yet: {obstacle}"
        held_up = situation.with_status(phase=phase, message=message)
        return Decision(held_up, "CannotStart", action, again_after=REFUSED_AGAIN_S)
    return Decision(situation.with_status(phase=phase), held, action, again_after=0)
