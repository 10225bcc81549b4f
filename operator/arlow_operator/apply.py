"""Writes what was decided: the status first, and then what it announces. Nothing else writes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from aiohttp import ClientSession

from arlow_operator.api import Api, ApiError
from arlow_operator.events import delivery_event, events_of
from arlow_operator.notifications import Notification
from arlow_operator.policies.situation import (
    CreateAttempt,
    Decision,
    DeleteJob,
    StopPods,
    WriteStacks,
)
from arlow_operator.render import (
    render_cache_claim,
    render_config_map,
    render_environment,
    render_job,
    render_service,
)
from arlow_operator.resource import Run
from arlow_operator.settings import Settings
from arlow_operator.status import Status
from arlow_operator.status_endpoint import ask_stacks
from arlow_trainer.config.object_names import RUN_UID_LABEL

# What changes at every look; the rest is a transition.
PROGRESS = {"progress", "lastCheckpoint", "goodput"}
# HTTP codes of requests that are refused until something changes; 500 where a webhook is away.
REFUSALS = (400, 403, 409, 413, 422, 500)


def is_due(before: Status, after: Status, now: datetime, every_s: float) -> bool:
    """Whether a status is written: a transition at once, progress now and then."""
    changed = _changed(before, after)
    if not changed:
        return False
    if not changed <= PROGRESS:
        return True
    # A little less, so that a look that comes early by milliseconds is not one too few.
    return progress_due_in(before, now, every_s) <= 1


def progress_due_in(written: Status, now: datetime, every_s: float) -> float:
    """Returns after how many seconds progress is written again that is written every `every_s`."""
    last = written.goodput.as_of if written.goodput else None
    return every_s - (now - last).total_seconds() if last else 0.0


def is_progress(before: Status, after: Status) -> bool:
    """Whether a status differs from an earlier one in nothing but how far the training is."""
    return _changed(before, after) <= PROGRESS


def _changed(before: Status, after: Status) -> set[str]:
    old, new = before.document(), after.document()
    return {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}


async def write_status(
    api: Api,
    body: Mapping[str, Any],
    before: Status,
    decision: Decision,
    now: datetime,
    every: float,
) -> Mapping[str, Any]:
    """Writes a decision's status where it is due, and always before an action.

    Returns the run as it is then.
    """
    announced = decision.action is not None and before != decision.status
    if announced or is_due(before, decision.status, now, every):
        return await api.write_status(body, decision.status.document())
    return body


class Refused(Exception):
    """An attempt's objects cannot be made; the message says why."""


async def act(
    api: Api, http: ClientSession, run: Run, decision: Decision, settings: Settings
) -> None:
    """Does what a decision says, once its status is written. Raises Refused and ApiError."""
    match decision.action:
        case CreateAttempt() as attempt:
            await _create(api, run, attempt, settings)
        case DeleteJob(name, uid):
            await api.delete_job(run.namespace, name, uid)
        case StopPods(pods, grace_seconds):
            for name, uid in pods:
                await api.delete_pod(run.namespace, name, uid, grace_seconds)
        case WriteStacks(address):
            await ask_stacks(http, address)


async def _create(api: Api, run: Run, attempt: CreateAttempt, settings: Settings) -> None:
    if run.parsed is None:
        raise AssertionError("no attempt is decided on for a run that is not valid")
    number = attempt.number
    job = render_job(run, run.parsed, number, attempt.image, settings, attempt.avoided_nodes)
    made = [
        render_cache_claim(run, run.parsed, settings.defaults),
        render_environment(run, number, settings.defaults),
        render_config_map(run, number, settings.defaults),
        render_service(run, number, settings.defaults),
        job,
    ]
    for body in filter(None, made):
        try:
            await api.create(body)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                await _must_be_own(api, run, body)
            elif error.code in REFUSALS:
                raise Refused(f"{body['kind']} {body['metadata']['name']}: {error}") from None
            else:
                raise


async def _must_be_own(api: Api, run: Run, body: Mapping[str, Any]) -> None:
    """Raises Refused where an object of this name was not made for this run.

    One that was is what is left of a pass that did not come to its end. That of an earlier run of
    the name is deleted with it some moments after that, and may hold another manifest.
    """
    kind, name = body["kind"], body["metadata"]["name"]
    labels = await api.read_labels(kind, run.namespace, name)
    if labels is None:
        raise Refused(f"the {kind} {name} of an earlier run is just being deleted")
    if labels.get(RUN_UID_LABEL) != run.uid:
        raise Refused(f"there is a {kind} {name} already, which was not made for this run")


async def tell(api: Api, run: Run, before: Status, after: Status, now: datetime) -> None:
    """Writes the events of a transition; one that cannot be written is left out."""
    for event in events_of(run, before, after, now):
        with contextlib.suppress(ApiError):
            await api.create(event)


async def record_delivery(api: Api, sent: Notification) -> None:
    """Writes the event by which the next operator knows that a webhook was told; where it cannot be
    written, the webhook may be told twice."""
    with contextlib.suppress(ApiError):
        await api.create(delivery_event(sent))
