"""A run that lives: how far it is, or why it does not start."""

from __future__ import annotations

from datetime import datetime, timedelta

from arlow_operator.observation import JobSeen, Observation
from arlow_operator.policies.situation import Decision, Situation
from arlow_operator.resource import PRIORITY_LABEL, QUEUE_LABEL
from arlow_operator.status import CheckpointStatus, ProgressStatus, Status, whole_second
from arlow_trainer.config.object_names import RUN_LABEL, STATUS_PORT
from arlow_trainer.config.status import RunStatus

STARTING = ("starting", "loading")
TRAINING = ("training", "saving", "finished")
# Kueue makes a Job's Workload at once.
UNNOTICED_AFTER = timedelta(seconds=10)
# The trainer answers some seconds after its process begins.
SILENT_AFTER = timedelta(seconds=30)
# As the scheduler says it.
NO_SUCH_NODE = "didn't match Pod's node affinity/selector"
POLICY_HINT = (
    f"add a NetworkPolicy that lets the operator's pods reach port {STATUS_PORT} of pods labelled "
    f"{RUN_LABEL}, if one keeps it from them"
)


def remember(status: Status, seen: Observation, run_uid: str, run_url: str | None) -> Status:
    """Returns the status with the newest progress and checkpoint that the trainer told of."""
    if seen.reported and (told := seen.reported.status):
        progress = _progress(told, seen.reported.asked, status.progress)
        status = status.model_copy(update={"progress": progress})
        if told.last_checkpoint:
            last = told.last_checkpoint
            found = CheckpointStatus(url=last.url, step=last.step, time=whole_second(last.time))
            status = _with_checkpoint(status, found)
    for pod in seen.pods:
        end = pod.end
        if pod.run_uid != run_uid or end is None or end.ending is None or end.ending.saved is None:
            continue
        url = f"{run_url}/checkpoint-{end.ending.saved}" if run_url else None
        found = CheckpointStatus(url=url, step=end.ending.saved, time=end.time)
        status = _with_checkpoint(status, found)
    return status


def _with_checkpoint(status: Status, found: CheckpointStatus) -> Status:
    known, step = status.checkpoint_step, found.step
    if step is None or (known is not None and known >= step):
        return status
    return status.model_copy(update={"last_checkpoint": found})


def shown_progress(status: Status) -> ProgressStatus | None:
    """Returns the progress without what is only true of a run that trains."""
    if status.progress is None or status.phase == "Running":
        return status.progress
    rates = dict.fromkeys(("images_per_second", "mfu", "eta_seconds", "eta"))
    return status.progress.model_copy(update=rates)


def follow(situation: Situation) -> Decision:
    """Says what a live attempt does."""
    job, pods, reported = situation.job, situation.pods, situation.seen.reported
    status, every = situation.status, situation.settings.progress_seconds
    nodes = sorted({pod.node for pod in pods if pod.node})
    if situation.attempt and nodes and nodes != situation.attempt.nodes:
        attempt = situation.attempt.model_copy(update={"nodes": nodes})
        status = status.model_copy(update={"attempt": attempt})
    if job and job.suspended:
        held, message = _queue(situation, job)
        queued = status.model_copy(update={"phase": "Queued", "message": message})
        return Decision(queued, "CannotStart" if held else "Queued", again_after=min(every, 5))
    deleted = next((pod for pod in pods if pod.deleted), None)
    if deleted:
        message = f"pod {deleted.name} was asked to end and saves a checkpoint"
        ending = status.model_copy(update={"message": message})
        return Decision(ending, "Stopping", again_after=1, stopping=True)
    if reported and reported.status:
        if reported.status.phase in TRAINING:
            running = status.model_copy(update={"phase": "Running", "message": ""})
            return Decision(running, "Training", again_after=every)
        message = reported.status.message or f"the trainer is {reported.status.phase}"
        # One that is stopped or has failed is about to end.
        phase = "Starting" if reported.status.phase in STARTING else status.phase
        starting = status.model_copy(update={"phase": phase, "message": message})
        return Decision(starting, "Starting", again_after=every)
    if reported and status.phase == "Running":
        since = status.progress.last_update_time if status.progress else None
        message = (
            f"/status cannot be reached since {since:%H:%M:%S} UTC ({reported.problem}): step and "
            "checkpoint are unknown"
            if since
            else f"/status cannot be reached ({reported.problem})"
        )
        if not reported.refused:
            message += f"; {POLICY_HINT}"
        unknown = status.model_copy(update={"message": message})
        return Decision(unknown, "Unreachable", again_after=every)
    obstacle = next((pod.obstacle for pod in pods if pod.obstacle), situation.seen.obstacle)
    number = situation.attempt.number if situation.attempt else 1
    starts = "the pods start"
    if number > 1:
        starts = f"the pods of attempt {number} start{situation.end_before}"
    message = f"cannot start yet: {obstacle}" if obstacle else starts
    if NO_SUCH_NODE in obstacle:
        message += _wanted_nodes(situation)
    since = next((pod.running_since for pod in pods if pod.running_since), None)
    if reported and not reported.refused and since and situation.now - since > SILENT_AFTER:
        message = (
            f"the pod runs since {since:%H:%M:%S} UTC, and /status cannot be reached "
            f"({reported.problem}): {POLICY_HINT}"
        )
        silent = status.model_copy(update={"phase": "Starting", "message": message})
        return Decision(silent, "Unreachable", again_after=2)
    starting = status.model_copy(update={"phase": "Starting", "message": message})
    return Decision(starting, "CannotStart" if obstacle else "Starting", again_after=2)


def _wanted_nodes(situation: Situation) -> str:
    """Returns which nodes a run of GPUs asks for, which the scheduler does not say."""
    nodes = situation.run.parsed.spec.nodes if situation.run.parsed else None
    if nodes is None or not nodes.gpus:
        return ""
    settings, labels = situation.settings, ""
    if nodes.gpu_product:
        product = settings.gpu_products[nodes.gpu_product]
        labels = f" labelled {settings.gpu_label}={product}"
    selected = " that spec.nodes.nodeSelector selects" if nodes.node_selector else ""
    return (
        f" It asks for nodes{labels}{selected} whose GPUs are whole: neither shared "
        "(nvidia.com/gpu.sharing-strategy) nor cut by MIG (nvidia.com/gpu.slices.gi)."
    )


def _queue(situation: Situation, job: JobSeen) -> tuple[bool, str]:
    """Returns whether a Job waits for what never comes by itself, and why it waits, in words."""
    if situation.ending_pods:
        return False, "stopped by its queue: its pods save a checkpoint and end"
    queue = situation.seen.queue
    where = f"queued in the LocalQueue {job.queue}" if job.queue else "queued"
    if job.queue and QUEUE_LABEL not in situation.run.labels:
        where += " (the run names none, and the namespace has a default)"
    if queue is None:
        if situation.now - job.created < UNNOTICED_AFTER:
            return False, f"{where}: the Job waits to be admitted"
        label = situation.run.labels.get(PRIORITY_LABEL)
        which = f"is {label!r} a WorkloadPriorityClass" if label else "does it run"
        return True, f"{where}: Kueue has taken no notice of the Job {job.name}: {which}?"
    if not queue.active:
        return True, (
            f"Kueue has deactivated the Workload {queue.workload}"
            f"{f' ({queue.message})' if queue.message else ''}: mend the cause, then suspend and "
            "resume the run"
        )
    return False, f"{where}: {queue.message or 'the Job waits to be admitted'}"


def _progress(told: RunStatus, asked: datetime, before: ProgressStatus | None) -> ProgressStatus:
    if before is not None and told.phase in STARTING:
        # It has not yet loaded the checkpoint that it goes on from.
        heard = {"step_time": whole_second(asked), "last_update_time": whole_second(asked)}
        return before.model_copy(update=heard)
    same_step = before is not None and before.step == told.step and told.phase == "training"
    step_time = before.step_time if before and same_step else None
    percent = None
    if told.total_steps:
        percent = round(100 * told.step / told.total_steps, 1)
    return ProgressStatus(
        step=told.step,
        total_steps=told.total_steps,
        percent=percent,
        loss=_rounded(told.loss),
        images_per_second=_rounded(told.images_per_second),
        mfu=_rounded(told.scalar("mfu")),
        eta_seconds=round(told.eta_seconds) if told.eta_seconds is not None else None,
        eta=_duration(told.eta_seconds) if told.eta_seconds is not None else None,
        step_time=step_time or whole_second(asked),
        last_update_time=whole_second(asked),
    )


def _rounded(value: float | None) -> float | None:
    """Returns a number with four digits; None for NaN and Inf, which the API refuses."""
    if value is None or value != value or value in (float("inf"), float("-inf")):
        return None
    return float(f"{value:.4g}")


def _duration(seconds: float) -> str:
    minutes, hours = int(seconds // 60) % 60, int(seconds // 3600)
    if hours >= 24:
        return f"{hours // 24}d{hours % 24}h"
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{int(seconds) % 60}s" if minutes else f"{int(seconds)}s"
