"""One pass over a run: read, observe, decide, write the status, act."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from aiohttp import ClientSession

from arlow_operator.api import Api, ApiError
from arlow_operator.apply import Refused, act, tell, write_status
from arlow_operator.decide import decide
from arlow_operator.observation import PodSeen, pod_seen
from arlow_operator.observe import observe
from arlow_operator.resource import MANAGER, RUN_LABEL, read_run
from arlow_operator.settings import Settings

log = logging.getLogger(__name__)

CONFLICT_AGAIN_S = 0.2


class Key(NamedTuple):
    """A run's name and namespace."""

    namespace: str
    name: str


class Reconciler:
    """Passes over runs. Remembers of pods how they ended, which the API soon forgets."""

    def __init__(self, api: Api, http: ClientSession, settings: Settings) -> None:
        self._api = api
        self._http = http
        self._settings = settings
        self._ended: dict[Key, dict[str, PodSeen]] = {}
        self._refused: dict[Key, str] = {}

    def saw_pod(self, body: Mapping[str, Any]) -> Key | None:
        """Takes note of a pod from a watch event; returns the run that it belongs to."""
        metadata = body["metadata"]
        name = (metadata.get("labels") or {}).get(RUN_LABEL)
        if not name:
            return None
        key = Key(metadata["namespace"], name)
        pod = pod_seen(body)
        if pod.end or pod.disruption or pod.evicted:
            self._ended.setdefault(key, {})[pod.uid] = pod
        return key

    async def reconcile(self, key: Key) -> float | None:
        """Makes one pass; returns after how many seconds the next one is due, if one is.

        Raises ApiError where the API fails.
        """
        body = await self._api.read_run(key.namespace, key.name)
        if body is None:
            self._ended.pop(key, None)
            self._refused.pop(key, None)
            return None
        run, status = read_run(body)
        if run.managed_by != MANAGER or run.deleted:
            return None
        ended = self._ended.get(key, {})
        refused = self._refused.get(key, "")
        seen = await observe(self._api, self._http, run, status, list(ended.values()), refused)
        now = datetime.now(UTC)
        decision = decide(run, status, seen, now, self._settings)
        every = self._settings.progress_seconds
        try:
            await write_status(self._api, body, status, decision, now, every)
            await tell(self._api, run, status, decision.status)
            await act(self._api, self._http, run, decision, self._settings)
        except Refused as error:
            self._refused[key] = str(error)
            log.warning("%s: %s", "/".join(key), error)
            return decision.again_after if str(error) == refused else 0
        except ApiError as error:
            if error.code == 409:
                # Somebody was faster, or what was read was old.
                return CONFLICT_AGAIN_S
            raise
        self._refused.pop(key, None)
        if decision.status.phase != status.phase or decision.action:
            action = decision.action or "no action"
            log.info("%s: %s, %s", "/".join(key), decision.status.phase, action)
        current = decision.status.attempt
        if current and current.job_uid:
            self._ended[key] = {u: p for u, p in ended.items() if p.job_uid == current.job_uid}
        return decision.again_after
