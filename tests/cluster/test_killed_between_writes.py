"""The operator is killed at every write that it makes. `make soak-cluster` runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ClientSession
from cluster_runs import tiny_run
from kube import OPERATOR, Cluster, condition

from arlow_operator.api import Api
from arlow_operator.metrics import Runs
from arlow_operator.reconcile import Key, Reconciler
from arlow_operator.settings import Settings
from support.s3_server import S3

pytestmark = pytest.mark.soak

IMAGE = "localhost/missing:1"
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
        return Reconciler(self._api, self._http, Settings(image=IMAGE), Runs())  # type: ignore[arg-type]

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


async def live(cluster: Cluster, key: Key, dies_at: int, after: bool) -> int:
    """Lives the story; returns how often the operator was killed."""
    api = await Api.connected()
    try:
        async with ClientSession() as http:
            story = Story(key, MortalApi(api, dies_at, after), http)
            await story.until(runs_attempt(1))
            cluster.patch_spec(key.name, key.namespace, suspend=True)
            await story.until(lambda status: condition(status, "Suspended")["status"] == "True")
            cluster.patch_spec(key.name, key.namespace, suspend=False)
            await story.until(runs_attempt(2))
            return story.deaths
    finally:
        await api.close()


def test_a_run_comes_through_a_kill_at_every_write(
    cluster: Cluster, cluster_s3: S3, namespace: str
) -> None:
    cluster.kubectl("scale", *OPERATOR, "--replicas=0")
    cluster.kubectl("rollout", "status", *OPERATOR, "--timeout=60s")
    survived = []
    try:
        for dies_at in range(1, 100):
            deaths = 0
            for after in (False, True):
                name = f"run-{dies_at}-{'after' if after else 'before'}"
                run = tiny_run(name, namespace, cluster_s3, "s3://bucket/images")
                run["spec"] |= {"image": IMAGE, "imagePullPolicy": "Never"}
                del run["spec"]["checkpoint"]["secretRef"]
                cluster.apply(run)
                deaths += asyncio.run(live(cluster, Key(namespace, name), dies_at, after))
                cluster.kubectl("delete", "apt", name, "-n", namespace)
                cluster.wait_until_gone("jobs", namespace)
            if deaths == 0:
                break
            survived.append(dies_at)
    finally:
        cluster.kubectl("scale", *OPERATOR, "--replicas=1")
        cluster.kubectl("rollout", "status", *OPERATOR, "--timeout=60s")
    # Status, ConfigMap, Service, Job, jobUid, suspension, deletion, and the second attempt's.
    assert len(survived) >= 10, survived
    print(f"killed before and after each of {len(survived)} writes")
