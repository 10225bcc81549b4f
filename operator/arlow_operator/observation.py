"""What is there of a run in the cluster, at a moment. Pure: from JSON of the API to values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from pydantic import ValidationError

from arlow_operator.pod_patch import CONTAINER
from arlow_operator.resource import GENERATION_ANNOTATION, QUEUE_LABEL
from arlow_trainer.config.ending import Ending
from arlow_trainer.config.object_names import ATTEMPT_LABEL, RUN_UID_LABEL
from arlow_trainer.config.status import RunStatus

Json = Mapping[str, Any]


@dataclass(frozen=True)
class JobSeen:
    """A Job that carries the run's label.

    Attributes:
        name, uid, created: of its metadata.
        run_uid, attempt: of its labels; attempt is 0 where that is no number.
        generation: of the run that it was made from.
        image: of the trainer.
        started: when it was started last; a queue may stop a Job and start it again.
        suspended: whether it waits, for a queue.
        queue: the LocalQueue that it is in; empty where it is in none.
        ended: whether it is Complete or Failed, or neither.
    """

    name: str
    uid: str
    created: datetime
    run_uid: str
    attempt: int
    generation: int | None = None
    image: str | None = None
    started: datetime | None = None
    suspended: bool = False
    queue: str = ""
    ended: Literal["Complete", "Failed"] | None = None


@dataclass(frozen=True)
class ContainerEnd:
    """How the trainer's container ended.

    Attributes:
        exit_code, reason: as the kubelet tells them.
        ending: what the trainer wrote last; None where it wrote nothing that can be read.
        time: when.
    """

    exit_code: int
    reason: str
    ending: Ending | None
    time: datetime | None


@dataclass(frozen=True)
class PodSeen:
    """A pod that carries the run's label.

    Attributes:
        name, uid: of its metadata.
        job_uid, run_uid, attempt: whose it is.
        created: of its metadata.
        node, address: where it runs; empty until it does.
        running, ready: of the trainer's container.
        running_since: when that was started; None while it does not run.
        over: whether nothing of it runs any more.
        deleted: when it was asked to end; the grace is already in it.
        disruption: reason of the condition DisruptionTarget; empty without one.
        evicted: what the kubelet said when the pod had exceeded its own limits; else empty.
        end: how the trainer's container ended; None while it has not.
        obstacle: what keeps it from starting; empty where nothing does.
    """

    name: str
    uid: str
    job_uid: str
    run_uid: str
    attempt: int
    created: datetime
    node: str = ""
    address: str = ""
    running: bool = False
    ready: bool = False
    running_since: datetime | None = None
    over: bool = False
    deleted: datetime | None = None
    disruption: str = ""
    evicted: str = ""
    end: ContainerEnd | None = None
    obstacle: str = ""


@dataclass(frozen=True)
class Reported:
    """The trainer's answer at /status, or that there was none.

    Attributes:
        asked: when it was asked.
        status: what it said; None where it could not be reached.
        problem: why not; empty where it answered.
        refused: whether the pod's address was reached and nothing listens there, as in a start.
    """

    asked: datetime
    status: RunStatus | None = None
    problem: str = ""
    refused: bool = False


@dataclass(frozen=True)
class QueueSeen:
    """What Kueue says of the attempt's Job.

    Attributes:
        workload: name of the Job's Workload.
        active: whether Kueue considers it at all.
        message: why it is not admitted; empty where nothing is said.
    """

    workload: str
    active: bool
    message: str


@dataclass(frozen=True)
class Observation:
    """All that is known of a run's children.

    Attributes:
        jobs, pods: those that carry the run's label, of this run or of an earlier one of its name.
        obstacle: what keeps the attempt from starting and only events or a refused request tell:
            its Job cannot make pods, a pod cannot mount a volume, the Job cannot be made.
        reported: the trainer's answer; None where nobody was asked.
        queue: of a Job that waits; None where no Kueue has taken notice of it.
    """

    jobs: Sequence[JobSeen] = ()
    pods: Sequence[PodSeen] = ()
    obstacle: str = ""
    reported: Reported | None = None
    queue: QueueSeen | None = None


def queue_seen(body: Json) -> QueueSeen:
    """Returns what counts of a Workload."""
    conditions = {c["type"]: c for c in (body.get("status") or {}).get("conditions", ())}
    active = body["spec"].get("active", True)
    telling = conditions.get("QuotaReserved" if active else "Evicted", {})
    return QueueSeen(body["metadata"]["name"], active, telling.get("message", ""))


def job_seen(body: Json) -> JobSeen:
    """Returns what counts of a Job."""
    metadata, spec, status = body["metadata"], body["spec"], body.get("status") or {}
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    true = [each["type"] for each in status.get("conditions", ()) if each["status"] == "True"]
    containers = spec["template"]["spec"]["containers"]
    generation = annotations.get(GENERATION_ANNOTATION, "")
    started = status.get("startTime")
    return JobSeen(
        name=metadata["name"],
        uid=metadata["uid"],
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
        run_uid=labels.get(RUN_UID_LABEL, ""),
        attempt=_number(labels.get(ATTEMPT_LABEL)),
        generation=int(generation) if generation.isdecimal() else None,
        image=next((each["image"] for each in containers if each["name"] == CONTAINER), None),
        started=datetime.fromisoformat(started) if started else None,
        queue=labels.get(QUEUE_LABEL, ""),
        # The condition outlives the field for a moment, in which the old start time still stands.
        suspended=bool(spec.get("suspend")) or "Suspended" in true,
        ended="Complete" if "Complete" in true else "Failed" if "Failed" in true else None,
    )


def pod_seen(body: Json) -> PodSeen:
    """Returns what counts of a pod."""
    metadata, spec, status = body["metadata"], body["spec"], body.get("status") or {}
    labels = metadata.get("labels") or {}
    conditions = {each["type"]: each for each in status.get("conditions", ())}
    phase = status.get("phase", "")
    container: Json = next(
        (each for each in status.get("containerStatuses", ()) if each["name"] == CONTAINER), {}
    )
    state = container.get("state") or {}
    disruption = conditions.get("DisruptionTarget", {})
    deleted = metadata.get("deletionTimestamp")
    since = (state.get("running") or {}).get("startedAt")
    return PodSeen(
        name=metadata["name"],
        uid=metadata["uid"],
        job_uid=next(
            (each["uid"] for each in metadata.get("ownerReferences", ()) if each["kind"] == "Job"),
            "",
        ),
        run_uid=labels.get(RUN_UID_LABEL, ""),
        attempt=_number(labels.get(ATTEMPT_LABEL)),
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
        node=spec.get("nodeName", ""),
        address=status.get("podIP", ""),
        running="running" in state,
        ready=conditions.get("Ready", {}).get("status") == "True",
        running_since=datetime.fromisoformat(since) if since else None,
        over=phase in ("Succeeded", "Failed"),
        deleted=datetime.fromisoformat(deleted) if deleted else None,
        disruption=disruption.get("reason", "") if disruption.get("status") == "True" else "",
        evicted=status.get("message", "").strip() if status.get("reason") == "Evicted" else "",
        end=_container_end(state.get("terminated")),
        obstacle="" if phase != "Pending" else _obstacle(status, conditions),
    )


def with_ends(pods: Sequence[PodSeen], earlier: Sequence[PodSeen]) -> tuple[PodSeen, ...]:
    """Returns the pods, with what was seen of them earlier and cannot have become untrue.

    The end of a deleted pod is visible for about a second, and then the pod is gone.
    """
    known = {pod.uid: pod for pod in earlier}
    found = []
    for pod in pods:
        old = known.pop(pod.uid, pod)
        found.append(
            replace(
                pod,
                end=pod.end or old.end,
                disruption=pod.disruption or old.disruption,
                evicted=pod.evicted or old.evicted,
            )
        )
    gone = (replace(pod, over=True, running=False, ready=False) for pod in known.values())
    return (*found, *gone)


def _container_end(terminated: Json | None) -> ContainerEnd | None:
    if terminated is None:
        return None
    finished = terminated.get("finishedAt")
    return ContainerEnd(
        exit_code=terminated.get("exitCode", -1),
        reason=terminated.get("reason", ""),
        ending=_ending(terminated.get("message", "")),
        time=datetime.fromisoformat(finished) if finished else None,
    )


def _ending(message: str) -> Ending | None:
    for line in reversed(message.strip().splitlines()):
        try:
            ending = Ending.model_validate_json(line)
        except ValidationError:
            continue
        if is_count(ending.step) and is_count(ending.saved):
            return ending
    return None


def is_count(number: float | None) -> bool:
    """Whether a number of a trainer's fits into a status: the API refuses NaN and what is above
    int64, and with it the whole write."""
    return number is None or 0 <= number < 2**53


def _obstacle(status: Json, conditions: Mapping[str, Json]) -> str:
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return f"no node takes the pod: {scheduled.get('message', scheduled.get('reason', ''))}"
    states = (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
    for state in states:
        waiting = state.get("state", {}).get("waiting") or {}
        if waiting.get("reason", "") not in ("", "ContainerCreating", "PodInitializing"):
            return f"{waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
    return ""


def _number(label: str | None) -> int:
    return int(label) if label and label.isdecimal() else 0
