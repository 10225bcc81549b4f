"""What policies decide on, and what they decide."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from arlow_operator.observation import JobSeen, Observation, PodSeen
from arlow_operator.resource import Run, attempt_name
from arlow_operator.settings import Settings
from arlow_operator.status import AttemptStatus, Reason, Status

# An attempt that was begun so much later than a restart was not begun for it alone.
RESTARTED_FOR = timedelta(minutes=10)
# After its grace the kubelet kills a pod; one that is there much longer is on a node that is lost.
LOST_AFTER = timedelta(seconds=60)


@dataclass(frozen=True)
class CreateAttempt:
    """Make the ConfigMap, the Service and the Job of an attempt, on other nodes than some if it
    can be."""

    number: int
    image: str
    avoided_nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeleteJob:
    """Delete a Job with its pods, which have their grace to save a checkpoint."""

    name: str
    uid: str


@dataclass(frozen=True)
class StopPods:
    """Delete pods, by name and uid, that cannot save any more: their grace is short.

    A grace once begun cannot be shortened, so that this comes before their Job is deleted.
    """

    pods: tuple[tuple[str, str], ...]
    grace_seconds: int = 30


@dataclass(frozen=True)
class WriteStacks:
    """Have the trainer at an address write the stacks of all its processes to its log."""

    address: str


Action = CreateAttempt | DeleteJob | StopPods | WriteStacks


@dataclass(frozen=True)
class Decision:
    """What is to be done.

    Attributes:
        status: what is written before anything is done.
        reason: why the run is in its phase.
        action: what is done then; None for nothing.
        again_after: seconds after which the run is looked at again, whatever happens; None where
            only an event can change anything.
        stalled: whether the training makes no steps.
        stopping: whether pods still end.
    """

    status: Status
    reason: Reason
    action: Action | None = None
    again_after: float | None = None
    stalled: bool = False
    stopping: bool = False


@dataclass(frozen=True)
class Situation:
    """A run, what was known of it and what is seen of it now."""

    run: Run
    status: Status
    seen: Observation
    now: datetime
    settings: Settings

    @cached_property
    def own_jobs(self) -> list[JobSeen]:
        """Jobs of this run, not of an earlier one of its name; newest attempt first."""
        ours = (job for job in self.seen.jobs if job.run_uid == self.run.uid)
        return sorted(ours, key=lambda job: job.attempt, reverse=True)

    @property
    def attempt(self) -> AttemptStatus | None:
        """The attempt that runs, or is about to."""
        return self.status.attempt

    @cached_property
    def job(self) -> JobSeen | None:
        """The attempt's Job."""
        number = self.attempt.number if self.attempt else 0
        return next((job for job in self.own_jobs if job.attempt == number), None)

    @cached_property
    def pods(self) -> list[PodSeen]:
        """The attempt's pods, but for those that its queue has stopped: it starts others."""
        uid = self.attempt.job_uid if self.attempt else None
        own = (pod for pod in self.seen.pods if uid and pod.job_uid == uid)
        return [pod for pod in own if not self._stopped_by_queue(pod)]

    @cached_property
    def ending_pods(self) -> list[PodSeen]:
        """Pods of this run's name, of any attempt, that may still run."""
        return [pod for pod in self.seen.pods if not pod.over and not self.is_lost(pod)]

    @property
    def end_before(self) -> str:
        """How the attempt before ended, to follow a message about the start of the one that a
        restart has begun; empty where none has."""
        last = next(iter(self.status.restarts.last), None)
        begun = self.attempt.start_time if self.attempt else None
        if last is None or (begun or self.now) - last.time > RESTARTED_FOR:
            return ""
        return f"; the one before: {shortened(last.message, 200)}"

    def is_lost(self, pod: PodSeen) -> bool:
        """Whether a pod's node no longer answers: the pod was to end long ago, and has not.

        A node that answers and is tainted lets its pods save; those stay Ready meanwhile.
        """
        if pod.deleted is None or pod.end is not None:
            return False
        silent = pod.disruption == "DeletionByTaintManager" and pod.running and not pod.ready
        return silent or self.now > pod.deleted + LOST_AFTER

    def _stopped_by_queue(self, pod: PodSeen) -> bool:
        job = self.job
        if job is None or pod.deleted is None or self.is_lost(pod):
            return False
        return job.suspended or (job.started is not None and pod.created < job.started)

    def begun(self, number: int, **changes: Any) -> Status:
        """Returns the status in which an attempt is about to be made."""
        attempt = AttemptStatus(number=number, job_name=attempt_name(self.run.name, number))
        image = self.attempt.image if self.attempt else None
        return self.with_status(attempt=attempt.model_copy(update={"image": image}), **changes)

    def with_status(self, **changes: Any) -> Status:
        """Returns the status with some of its fields changed."""
        return self.status.model_copy(update=changes)


def shortened(message: str, longest: int) -> str:
    """Returns a message of at most `longest` characters, the last one an ellipsis if it is cut."""
    return message if len(message) <= longest else f"{message[: longest - 1]}…"
