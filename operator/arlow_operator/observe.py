"""Reads a run's children from the API, and its trainer's /status."""

from __future__ import annotations

from aiohttp import ClientSession

from arlow_operator.api import Api
from arlow_operator.observation import (
    JobSeen,
    Observation,
    PodSeen,
    Reported,
    job_seen,
    pod_seen,
    with_ends,
)
from arlow_operator.resource import RUN_LABEL, Run
from arlow_operator.status import Status
from arlow_operator.status_endpoint import ask_status, status_url


async def observe(
    api: Api, http: ClientSession, run: Run, status: Status, earlier: list[PodSeen]
) -> Observation:
    """Returns what is there of a run now.

    Args:
        api: the API.
        http: the session for /status.
        run: the run.
        status: its status, whose attempt's pods are asked.
        earlier: pods as watch events showed them: how they ended, though they may be gone.
    """
    selector = f"{RUN_LABEL}={run.name}"
    # Pods first: Kueue suspends a Job just before its pods are deleted.
    pods = with_ends([pod_seen(p) for p in await api.list_pods(run.namespace, selector)], earlier)
    jobs = [job_seen(job) for job in await api.list_jobs(run.namespace, selector)]
    job_uid = status.attempt.job_uid if status.attempt else None
    own = [pod for pod in pods if job_uid and pod.job_uid == job_uid]
    refusals = {}
    for job in jobs:
        if job.uid == job_uid and job.ended is None and not own:
            refusals[job.uid] = await _refusal(api, run.namespace, job)
    reported = await _ask(http, own) if not status.finished else None
    return Observation(jobs, pods, refusals, reported)


async def _ask(http: ClientSession, pods: list[PodSeen]) -> Reported | None:
    for pod in pods:
        if pod.running and pod.address and pod.end is None:
            return await ask_status(http, status_url(pod.address))
    return None


async def _refusal(api: Api, namespace: str, job: JobSeen) -> str:
    """Returns why a Job could make no pods: it is told in events alone."""
    events = [e for e in await api.list_events(namespace, job.uid) if e["reason"] == "FailedCreate"]
    newest = max(events, key=lambda event: event["metadata"]["resourceVersion"], default=None)
    return str(newest["message"]) if newest else ""
