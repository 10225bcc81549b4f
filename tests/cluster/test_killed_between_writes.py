"""The operator is killed at every write that it makes. `make soak-cluster` runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from cluster_runs import TinyRuns
from kube import Cluster, condition
from operator_here import connected_api, write_kubeconfig

from arlow_operator.api import Api
from arlow_operator.apply import record_delivery
from arlow_operator.reconcile import Key, Reconciler
from arlow_operator.run_metrics import Runs
from arlow_operator.settings import Settings
from arlow_operator.webhook import Webhook

pytestmark = pytest.mark.soak

MOST_PASSES = 200
PAUSE_S = 0.05
WRITES = ("write_status", "create", "delete_job")


class Killed(BaseException):
    """The operator's process is gone."""


class MortalApi:
    """The API, through which a process dies at its n-th write: before it, or just after."""

    def __init__(self, api: Api, dies_at: int, after: bool) -> None:
        self._api, self._dies_at, self._after = api, dies_at, after
        self.writes = 0

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Awaitable[Any]] = getattr(self._api, name)
        if name not in WRITES:
            return method

        async def mortal(*arguments: Any) -> Any:
            self.writes += 1
            dies = self.writes == self._dies_at
            if dies and not self._after:
                raise Killed
            answer = await method(*arguments)
            if dies:
                raise Killed
            return answer

        return mortal


class Story:
    """A run that starts, is suspended, and is resumed, under an operator that is killed once."""

    def __init__(self, key: Key, api: MortalApi, http: ClientSession) -> None:
        self._key, self._api, self._http = key, api, http
        self._reconciler = self._new()
        self.deaths = 0

    def _new(self) -> Reconciler:
        settings = Settings(image="localhost/missing:1")
        webhook = Webhook(self._http, None, lambda _: None, partial(record_delivery, self._api))  # type: ignore[arg-type]
        return Reconciler(self._api, self._http, settings, Runs(), webhook)  # type: ignore[arg-type]

    async def until(self, holds: Callable[[dict[str, Any]], bool]) -> None:
        """Makes passes until the status is as wanted, in a bounded number."""
        for _ in range(MOST_PASSES):
            try:
                await self._reconciler.reconcile(self._key)
            except Killed:
                self.deaths += 1
                self._reconciler = self._new()
            jobs = await self._api.list_jobs(self._key.namespace, "")
            names = [each["metadata"]["name"] for each in jobs]
            assert len(names) <= 1, names
            body = await self._api.read_run(self._key.namespace, self._key.name)
            if holds(body.get("status") or {}):
                return
            # A pod takes a second to end.
            await asyncio.sleep(PAUSE_S)
        raise AssertionError(body)


def runs_attempt(number: int) -> Callable[[dict[str, Any]], bool]:
    def holds(status: dict[str, Any]) -> bool:
        attempt = status.get("attempt", {})
        return attempt.get("number") == number and "jobUid" in attempt

    return holds


async def live(runs: TinyRuns, name: str, kubeconfig: Path, dies_at: int, after: bool) -> int:
    """Lives the story; returns how often the operator was killed."""
    api = await connected_api(kubeconfig)
    try:
        async with ClientSession() as http:
            story = Story(Key(runs.namespace, name), MortalApi(api, dies_at, after), http)
            await story.until(runs_attempt(1))
            runs.patch(name, suspend=True)
            await story.until(lambda status: condition(status, "Suspended")["status"] == "True")
            runs.patch(name, suspend=False)
            await story.until(runs_attempt(2))
            return story.deaths
    finally:
        await api.close()


def test_a_run_comes_through_a_kill_at_every_write(
    cluster: Cluster, runs: TinyRuns, no_operator: None, tmp_path: Path
) -> None:
    write_kubeconfig(cluster, tmp_path / "kubeconfig")
    survived = []
    for dies_at in range(1, 100):
        deaths = 0
        for after in (False, True):
            name = f"run-{dies_at}-{'after' if after else 'before'}"
            cluster.apply(runs.idle(name))
            deaths += asyncio.run(live(runs, name, tmp_path / "kubeconfig", dies_at, after))
            runs.delete(name)
            cluster.wait_until_gone("jobs", runs.namespace)
        if deaths == 0:
            break
        survived.append(dies_at)
    # Status, ConfigMap, Service, Job, jobUid, suspension, deletion, and the second attempt's.
    assert len(survived) >= 10, survived
    print(f"killed before and after each of {len(survived)} writes")
