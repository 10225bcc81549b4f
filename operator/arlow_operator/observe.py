"""Reads a run's children from the API, and its trainer's /status."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from aiohttp import ClientSession

from arlow_operator.api import Api, ApiError
from arlow_operator.events import is_delivered
from arlow_operator.notifications import Notification, recent_notifications
from arlow_operator.observation import (
    Observation,
    PodSeen,
    job_seen,
    pod_seen,
    queue_seen,
    with_ends,
)
from arlow_operator.resource import Run
from arlow_operator.status import Status
from arlow_operator.status_endpoint import ask_status
from arlow_trainer.config.object_names import RUN_LABEL


async def observe(
    api: Api,
    http: ClientSession,
    run: Run,
    status: Status,
    earlier: list[PodSeen],
    refused: str,
) -> Observation:
    """Returns what is there of a run now.

    Args:
        api: the API.
        http: the session for /status.
        run: the run.
        status: its status, whose attempt's pods are asked.
        earlier: pods as watch events showed them: how they ended, though they may be gone.
        refused: why the attempt's objects could not be made when it was tried last.
    """
    selector = f"{RUN_LABEL}={run.name}"
    # Pods first: Kueue suspends a Job just before its pods are deleted.
    pods = with_ends([pod_seen(p) for p in await api.list_pods(run.namespace, selector)], earlier)
    jobs = [job_seen(job) for job in await api.list_jobs(run.namespace, selector)]
    job_uid = status.attempt.job_uid if status.attempt else None
    obstacle, queue = refused, None
    if any(job.uid == job_uid and job.suspended for job in jobs):
        workloads = await api.list_workloads(run.namespace, str(job_uid))
        queue = next(map(queue_seen, workloads), None)
    if job_uid and not status.finished:
        own = [pod for pod in pods if pod.job_uid == job_uid]
        obstacle = await _obstacle(api, run.namespace, job_uid, own)
    return await with_report(http, status, Observation(jobs, pods, obstacle, queue=queue))


async def with_report(http: ClientSession, status: Status, seen: Observation) -> Observation:
    """Returns an observation with what the attempt's trainer says now."""
    job_uid = status.attempt.job_uid if status.attempt else None
    if job_uid and not status.finished:
        for pod in seen.pods:
            if pod.job_uid == job_uid and pod.running and pod.address and pod.end is None:
                return replace(seen, reported=await ask_status(http, pod.address))
    return replace(seen, reported=None)


async def undelivered(api: Api, run: Run, status: Status, now: datetime) -> list[Notification]:
    """Returns what a webhook was not told of a run, as far as can be known, by an operator that is
    gone."""
    recent = list(recent_notifications(run, status, now))
    if not recent:
        return []
    try:
        events = await api.list_events(run.namespace, run.uid)
    except ApiError:
        # Twice is better than never.
        return recent
    return [each for each in recent if not is_delivered(each, events)]


async def _obstacle(api: Api, namespace: str, job_uid: str, pods: list[PodSeen]) -> str:
    """Returns why an attempt does not start, as far as it is told in events alone."""
    if not pods:
        return await _newest_event(api, namespace, job_uid, "FailedCreate")
    for pod in pods:
        if pod.node and not pod.running and pod.end is None and not pod.obstacle:
            return await _newest_event(api, namespace, pod.uid, "FailedMount")
    return ""


async def _newest_event(api: Api, namespace: str, uid: str, reason: str) -> str:
    events = [each for each in await api.list_events(namespace, uid) if each["reason"] == reason]
    newest = max(events, key=lambda each: int(each["metadata"]["resourceVersion"]), default=None)
    return str(newest["message"]) if newest else ""
