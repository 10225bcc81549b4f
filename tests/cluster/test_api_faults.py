"""The API fails at random, and every run comes through. `make soak-cluster` runs it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ClientSession
from cluster_runs import tiny_run
from kube import OPERATOR, Cluster, condition

from arlow_operator.api import Api, ApiError
from arlow_operator.metrics import Runs
from arlow_operator.reconcile import Key, Reconciler
from arlow_operator.settings import Settings
from support.s3_server import S3

pytestmark = pytest.mark.soak

IMAGE = "localhost/missing:1"
SEEDS = 10
MOST_PASSES = 400
PAUSE_S = 0.05
SHARE = 0.15
CODES = (0, 409, 410, 422, 429, 500)
METHODS = (
    *("read_run", "list_jobs", "list_pods", "list_events", "list_workloads", "read_labels"),
    *("write_status", "create", "delete_job", "delete_pod"),
)


class Killed(BaseException):
    """The operator's process is gone."""


class FaultyApi:
    """The API, of which each request may be refused, or be done and not answered, or answered with
    what was read by the request before; and at which the process may die before it or after."""

    def __init__(self, api: Api, chance: random.Random, faults: Counter[str]) -> None:
        self._api, self._chance, self._faults = api, chance, faults
        self._last: dict[tuple[Any, ...], Any] = {}

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Awaitable[Any]] = getattr(self._api, name)
        if name not in METHODS:
            return method

        async def faulty(*arguments: Any) -> Any:
            question = (name, *map(str, arguments))
            fault = self._chance.random() < SHARE
            kind = self._chance.choice(("refused", "unanswered", "stale", "killed", "killed after"))
            if not fault or (kind == "stale" and question not in self._last):
                answer = await method(*arguments)
                if not isinstance(answer, type(None)) and name.startswith(("read", "list")):
                    self._last[question] = answer
                return answer
            self._faults[kind] += 1
            if kind == "killed":
                raise Killed
            if kind == "refused":
                code = self._chance.choice(CODES)
                raise ApiError(code, "Injected", f"injected {code}", name)
            if kind == "stale":
                return self._last[question]
            await method(*arguments)
            if kind == "killed after":
                raise Killed
            raise ApiError(0, "NoAnswer", "no answer", name)

        return faulty


class Story:
    """A run that starts, is suspended and resumed, and whose Job is deleted by a person."""

    def __init__(self, key: Key, api: Api, faulty: FaultyApi, http: ClientSession) -> None:
        self._key, self._api, self._faulty, self._http = key, api, faulty, http
        self._reconciler = self._new()

    def _new(self) -> Reconciler:
        settings = Settings(image=IMAGE)
        return Reconciler(self._faulty, self._http, settings, Runs())  # type: ignore[arg-type]

    async def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        status: dict[str, Any] = {}
        for _ in range(MOST_PASSES):
            try:
                await self._reconciler.reconcile(self._key)
            except ApiError:
                pass
            except Killed:
                self._reconciler = self._new()
            selector = f"arlow.dev/run={self._key.name}"
            jobs = await self._api.list_jobs(self._key.namespace, selector)
            assert len(jobs) <= 1, [each["metadata"]["name"] for each in jobs]
            body = await self._api.read_run(self._key.namespace, self._key.name) or {}
            before, status = status, body.get("status") or {}
            number = before.get("attempt", {}).get("number", 0)
            assert status.get("attempt", {}).get("number", 0) >= number
            if holds(status):
                return status
            # A pod takes a second to end.
            await asyncio.sleep(PAUSE_S)
        raise AssertionError(status)


def lives(above: int) -> Callable[[dict[str, Any]], bool]:
    def holds(status: dict[str, Any]) -> bool:
        attempt = status.get("attempt", {})
        return attempt.get("number", 0) > above and "jobUid" in attempt

    return holds


async def live(cluster: Cluster, key: Key, chance: random.Random, faults: Counter[str]) -> None:
    api = await Api.connected()
    try:
        async with ClientSession() as http:
            story = Story(key, api, FaultyApi(api, chance, faults), http)
            status = await story.until(lives(0))
            cluster.patch_spec(key.name, key.namespace, suspend=True)
            await story.until(lambda s: condition(s, "Suspended")["status"] == "True")
            cluster.patch_spec(key.name, key.namespace, suspend=False)
            status = await story.until(lives(status["attempt"]["number"]))
            attempt = status["attempt"]
            await api.delete_job(key.namespace, attempt["jobName"], attempt["jobUid"])
            # No step was made: it waits ten seconds.
            await story.until(lambda s: s["restarts"]["total"] == 1)
    finally:
        await api.close()


def test_runs_come_through_an_api_that_fails_at_random(
    cluster: Cluster, cluster_s3: S3, namespace: str
) -> None:
    cluster.kubectl("scale", *OPERATOR, "--replicas=0")
    cluster.kubectl("rollout", "status", *OPERATOR, "--timeout=60s")
    faults: Counter[str] = Counter()
    try:
        for seed in range(SEEDS):
            name = f"run-{seed}"
            run = tiny_run(name, namespace, cluster_s3, "s3://bucket/images")
            run["spec"] |= {"image": IMAGE, "imagePullPolicy": "Never"}
            del run["spec"]["checkpoint"]["secretRef"]
            cluster.apply(run)
            asyncio.run(live(cluster, Key(namespace, name), random.Random(seed), faults))
            cluster.kubectl("delete", "apt", name, "-n", namespace)
    finally:
        cluster.kubectl("scale", *OPERATOR, "--replicas=1")
        cluster.kubectl("rollout", "status", *OPERATOR, "--timeout=60s")
    print(f"{SEEDS} runs, {sum(faults.values())} faults: {dict(sorted(faults.items()))}")
    assert sum(faults.values()) > SEEDS
