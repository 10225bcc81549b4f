"""Writes what was decided: the status first, and then what it announces. Nothing else writes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from arlow_operator.api import Api, ApiError
from arlow_operator.policies.situation import CreateAttempt, Decision, DeleteJob
from arlow_operator.render import render_config_map, render_job, render_service
from arlow_operator.resource import Run
from arlow_operator.settings import Settings
from arlow_operator.status import Status

# What changes at every look; the rest is a transition.
PROGRESS = {"progress", "lastCheckpoint"}


def is_due(before: Status, after: Status, now: datetime, every_s: float) -> bool:
    """Whether a status is written: a transition at once, progress now and then."""
    old, new = before.document(), after.document()
    if old == new:
        return False
    changed = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
    if not changed <= PROGRESS or before.progress is None:
        return True
    last = before.progress.last_update_time
    # A little less, so that a look that comes early by milliseconds is not one too few.
    return last is None or now - last >= timedelta(seconds=every_s - 1)


async def write_status(
    api: Api,
    body: Mapping[str, Any],
    before: Status,
    decision: Decision,
    now: datetime,
    every: float,
) -> Mapping[str, Any]:
    """Writes a decision's status where it is due, and returns the object as it is then."""
    if decision.action is None and not is_due(before, decision.status, now, every):
        return body
    if before.document() == decision.status.document():
        return body
    return await api.write_status(body, decision.status.document())


async def act(api: Api, run: Run, decision: Decision, settings: Settings) -> None:
    """Does what a decision says, once its status is written."""
    match decision.action:
        case CreateAttempt(number, image):
            await _create(api, run, number, image, settings)
        case DeleteJob(name, uid):
            await api.delete_job(run.namespace, name, uid)


async def _create(api: Api, run: Run, number: int, image: str, settings: Settings) -> None:
    if run.parsed is None:
        raise AssertionError("no attempt is decided on for a run that is not valid")
    for body in (
        render_config_map(run, number),
        render_service(run, number),
        render_job(run, run.parsed, number, image, settings),
    ):
        try:
            await api.create(body)
        except ApiError as error:
            # The Job of an earlier pass is found and told from another's by the next one.
            if error.reason != "AlreadyExists":
                raise
