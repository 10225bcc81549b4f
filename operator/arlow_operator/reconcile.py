"""One pass over a run: read, observe, decide, write the status, act."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from aiohttp import ClientSession

from arlow_operator.api import Api, ApiError
from arlow_operator.apply import (
    Refused,
    act,
    is_progress,
    progress_due_in,
    tell,
    write_status,
)
from arlow_operator.decide import decide
from arlow_operator.notifications import notifications_of
from arlow_operator.observation import Observation, PodSeen, pod_seen
from arlow_operator.observe import observe, undelivered, with_report
from arlow_operator.resource import MANAGER, read_run
from arlow_operator.run_metrics import Runs
from arlow_operator.settings import Settings
from arlow_operator.webhook import Webhook
from arlow_trainer.config.object_names import RUN_LABEL

log = logging.getLogger(__name__)

CONFLICT_AGAIN_S = 0.2
# A run that trains is read anew that often, although no event told of a change.
FULL_PASS_S = 600.0
# Writes of progress in all, whatever the number of runs.
PROGRESS_WRITES_PER_MINUTE = 240


class Key(NamedTuple):
    """A run's name and namespace."""

    namespace: str
    name: str


@dataclass
class Training:
    """A run that trains: as it was written last, and what its last full pass saw."""

    body: Mapping[str, Any]
    seen: Observation
    since: float


class Reconciler:
    """Passes over runs. Remembers of pods how they ended, which the API soon forgets.

    While a run trains and no event tells of a change, a pass asks its trainer alone, and writes.
    """

    def __init__(
        self,
        api: Api,
        http: ClientSession,
        settings: Settings,
        runs: Runs,
        webhook: Webhook,
    ) -> None:
        self._api = api
        self._runs = runs
        self._webhook = webhook
        # Runs whose transitions are all known, and told: not those of an earlier operator.
        self._taken_over: set[Key] = set()
        self._http = http
        self._settings = settings
        self._ended: dict[Key, dict[str, PodSeen]] = {}
        self._refused: dict[Key, str] = {}
        self._training: dict[Key, Training] = {}
        # Runs of which something has changed since their last full pass began to read.
        self._changed: set[Key] = set()

    def saw_run(self, body: Mapping[str, Any]) -> Key | None:
        """Returns the run of a watch event; None where only the status of one in training is new.

        Whoever else wrote that is found by the next write, which is refused.
        """
        key = Key(body["metadata"]["namespace"], body["metadata"]["name"])
        training = self._training.get(key)
        if training and _wanted(training.body) == _wanted(body):
            return None
        self.saw_child(key)
        return key

    def saw_child(self, key: Key) -> None:
        """Takes note that something of a run has changed."""
        self._training.pop(key, None)
        self._changed.add(key)

    def saw_pod(self, body: Mapping[str, Any]) -> Key | None:
        """Takes note of a pod from a watch event; returns the run that it belongs to."""
        metadata = body["metadata"]
        name = (metadata.get("labels") or {}).get(RUN_LABEL)
        if not name:
            return None
        key = Key(metadata["namespace"], name)
        self.saw_child(key)
        pod = pod_seen(body)
        if pod.end or pod.disruption or pod.evicted:
            self._ended.setdefault(key, {})[pod.uid] = pod
        return key

    async def reconcile(self, key: Key) -> float | None:
        """Makes one pass; returns after how many seconds the next one is due, if one is.

        Raises ApiError where the API fails.
        """
        training = self._training.get(key)
        if training:
            again = await self._follow(key, training)
            if again is not None:
                return again
        self._changed.discard(key)
        body: Mapping[str, Any] | None = await self._api.read_run(key.namespace, key.name)
        if body is None:
            self._ended.pop(key, None)
            self._refused.pop(key, None)
            self._taken_over.discard(key)
            self._runs.forget(key)
            return None
        run, status = read_run(body)
        if run.managed_by != MANAGER or run.deleted:
            self._runs.forget(key)
            return None
        if self._webhook.is_set and key not in self._taken_over:
            for notification in await undelivered(self._api, run, status, datetime.now(UTC)):
                self._webhook.tell(notification)
            self._taken_over.add(key)
        ended = self._ended.get(key, {})
        refused = self._refused.get(key, "")
        seen = await observe(self._api, self._http, run, status, list(ended.values()), refused)
        now = datetime.now(UTC)
        decision = decide(run, status, seen, now, self._settings)
        every = self._settings.progress_seconds
        try:
            # A write whose answer is lost may have been made, and no later pass sees a transition.
            self._taken_over.discard(key)
            body = await write_status(self._api, body, status, decision, now, every)
            self._taken_over.add(key)
            self._runs.tell(key, decision.status, run.gpus)
            for notification in notifications_of(run, status, decision.status):
                self._webhook.tell(notification)
            await tell(self._api, run, status, decision.status, now)
            await act(self._api, self._http, run, decision, self._settings)
        except Refused as error:
            self._refused[key] = str(error)
            log.warning("cannot start: %s", error)
            return decision.again_after if str(error) == refused else 0
        except ApiError as error:
            if error.code in (404, 409):
                # Somebody was faster, what was read was old, or the run is gone.
                return CONFLICT_AGAIN_S
            raise
        self._refused.pop(key, None)
        if decision.status.phase != status.phase or decision.action:
            action = decision.action or "no action"
            log.info("%s, %s", decision.status.phase, action)
        current = decision.status.attempt
        if current and current.job_uid:
            self._ended[key] = {u: p for u, p in ended.items() if p.job_uid == current.job_uid}
        settled = decision.reason == "Training" and decision.action is None
        if settled and key not in self._changed:
            self._training[key] = Training(body, seen, time.monotonic())
        return decision.again_after

    async def _follow(self, key: Key, training: Training) -> float | None:
        """Makes a pass that reads nothing; returns None where that is not enough."""
        if time.monotonic() - training.since > FULL_PASS_S:
            self._training.pop(key, None)
            return None
        run, status = read_run(training.body)
        seen = await with_report(self._http, status, training.seen)
        now = datetime.now(UTC)
        decision = decide(run, status, seen, now, self._settings)
        told_of_a_change = self._training.get(key) is not training
        if told_of_a_change or decision.action or not is_progress(status, decision.status):
            self._training.pop(key, None)
            return None
        every = max(
            self._settings.progress_seconds,
            60 * len(self._training) / PROGRESS_WRITES_PER_MINUTE,
        )
        try:
            body = await write_status(self._api, training.body, status, decision, now, every)
        except ApiError as error:
            self._training.pop(key, None)
            if error.code == 409:
                return None
            raise
        written = body is not training.body
        training.body = body
        self._runs.tell(key, decision.status, run.gpus)
        # A look too early is not followed by one that is as much too late.
        return every if written else min(every, max(1.0, progress_due_in(status, now, every)))


def _wanted(body: Mapping[str, Any]) -> tuple[Any, ...]:
    """Returns what of a run's object is not the operator's own."""
    metadata = body["metadata"]
    names = ("uid", "generation", "labels", "annotations", "deletionTimestamp")
    return tuple(metadata.get(name) for name in names)
