"""A Lease that only one operator holds: a second one waits until the first is gone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from arlow_operator.api import Api, ApiError

log = logging.getLogger(__name__)

NAME = "arlow-operator"
DURATION_S = 15.0
RENEW_S = 5.0
RETRY_S = 2.0


class LeaseLost(Exception):
    """Another operator has taken the Lease over."""


@dataclass
class Watch:
    """Since when a Lease has not changed, by this process's own clock: no two clocks are compared.

    Attributes:
        version: of the Lease when it was seen to change last.
        since: when that was.
    """

    version: str = ""
    since: float = 0.0

    def is_free(self, lease: Mapping[str, Any], me: str, now: float) -> bool:
        """Whether a Lease may be taken: it is ours, nobody's, or was not renewed for too long."""
        version = lease["metadata"]["resourceVersion"]
        if version != self.version:
            self.version, self.since = version, now
        holder = lease["spec"].get("holderIdentity") or me
        return holder == me or now - self.since > DURATION_S


class OperatorLease:
    """This operator's claim to look after the runs."""

    def __init__(self, api: Api, namespace: str, me: str) -> None:
        self._api, self._namespace, self._me = api, namespace, me
        self._watch = Watch()

    async def acquire(self) -> None:
        """Waits until this operator holds the Lease."""
        waiting = False
        while True:
            try:
                if await self._take():
                    return
            except ApiError as error:
                log.warning("the Lease %s cannot be taken: %s", NAME, error)
            else:
                if not waiting:
                    log.info("another operator holds the Lease %s; this one waits", NAME)
                waiting = True
            await asyncio.sleep(RETRY_S)

    async def keep(self) -> None:
        """Renews the Lease for ever. Raises LeaseLost.

        While the API does not answer nothing is lost: nobody else can take it either.
        """
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                if not await self._take():
                    raise LeaseLost(f"another operator has taken the Lease {NAME}")
            except ApiError as error:
                log.warning("the Lease %s cannot be renewed: %s", NAME, error)

    async def release(self) -> None:
        """Gives the Lease back, so that the next operator need not wait."""
        lease = await self._api.read_lease(self._namespace, NAME)
        if lease and lease["spec"].get("holderIdentity") == self._me:
            await self._api.update_lease({**lease, "spec": {**lease["spec"], "holderIdentity": ""}})

    async def _take(self) -> bool:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {
            "holderIdentity": self._me,
            "leaseDurationSeconds": int(DURATION_S),
            "renewTime": now,
        }
        lease = await self._api.read_lease(self._namespace, NAME)
        try:
            if lease is None:
                metadata = {"name": NAME, "namespace": self._namespace}
                kind = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
                await self._api.create({**kind, "metadata": metadata, "spec": spec})
            elif self._watch.is_free(lease, self._me, time.monotonic()):
                await self._api.update_lease({**lease, "spec": spec})
            else:
                return False
        except ApiError as error:
            if error.code == 409:  # another was faster
                return False
            raise
        return True
