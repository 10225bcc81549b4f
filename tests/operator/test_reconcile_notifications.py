"""Passes of the real reconciler tell a webhook once, over its later passes and other operators."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, web
from kubernetes.aio import client
from world import SETTINGS, World, manifest, started

from arlow_operator.api import Api, ApiError
from arlow_operator.apply import record_delivery
from arlow_operator.reconcile import Key, Reconciler
from arlow_operator.run_metrics import Runs
from arlow_operator.webhook import Webhook

RUN = Key("team", "run")
RUN_PATH = "/apis/arlow.dev/v1alpha1/namespaces/team/arlowpretrains/run"


class Servers:
    """The Kubernetes API of a world, and a webhook.

    Attributes:
        told: what the webhook was told.
        lost_answers: how many answers to writes of the status are still to be lost.
    """

    def __init__(self, world: World, folder: Path) -> None:
        self.told: list[Any] = []
        self.lost_answers = 0
        self._world = world
        self._events: list[Any] = []
        self._url = folder / "url"

    async def _run(self, _: web.Request) -> web.Response:
        return web.json_response(self._world.body)

    async def _write_status(self, request: web.Request) -> web.Response:
        self._world.body["status"] = (await request.json())["status"]
        if self.lost_answers:
            self.lost_answers -= 1
            return web.json_response({}, status=504)
        return web.json_response(self._world.body)

    async def _list(self, request: web.Request) -> web.Response:
        kind = request.path.rpartition("/")[2]
        items = {"pods": self._world.pods, "jobs": self._world.jobs, "events": self._events}
        return web.json_response({"items": items[kind]})

    async def _create_event(self, request: web.Request) -> web.Response:
        self._events.append(await request.json())
        return web.json_response(self._events[-1], status=201)

    async def _hook(self, request: web.Request) -> web.Response:
        self.told.append((await request.json())["event"])
        return web.Response()

    async def story(self, *operators: bool) -> None:
        """Has operators look after the run, one after the other, with three passes each.

        Args:
            operators: whether each sends what it tells the webhook, or is killed before.
        """
        app = web.Application()
        app.router.add_get(RUN_PATH, self._run)
        app.router.add_patch(f"{RUN_PATH}/status", self._write_status)
        app.router.add_post("/api/v1/namespaces/team/events", self._create_event)
        app.router.add_get("/{path:.*/(pods|jobs|events)}", self._list)
        app.router.add_post("/hook", self._hook)
        runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        async with AsyncExitStack() as stack:
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host = f"http://127.0.0.1:{runner.addresses[0][1]}"
            self._url.write_text(f"{host}/hook")
            http = await stack.enter_async_context(ClientSession(trust_env=False))
            api = Api(client.ApiClient(client.Configuration(host=host)))
            stack.push_async_callback(api.close)
            for sends in operators:
                record = partial(record_delivery, api)
                webhook = Webhook(http, self._url, lambda _: None, record)
                reconciler = Reconciler(api, http, SETTINGS, Runs(), webhook)
                sending = asyncio.create_task(webhook.send_all()) if sends else None
                for _ in range(3):
                    with suppress(ApiError):
                        await reconciler.reconcile(RUN)
                if sending:
                    await webhook.sent(10)
                    sending.cancel()


def failing(tmp_path: Path) -> Servers:
    """Returns the servers of a run whose trainer has just ended for good."""
    world = started()
    world.end(world.pod, 78)
    return Servers(world, tmp_path)


def test_an_end_is_told_once_by_all_passes_of_all_operators(tmp_path: Path) -> None:
    servers = failing(tmp_path)
    asyncio.run(servers.story(True, True, True))
    assert servers.told == ["Failed"]


def test_what_an_operator_was_killed_before_sending_is_sent_by_the_next(tmp_path: Path) -> None:
    servers = failing(tmp_path)
    asyncio.run(servers.story(False, False, True, True))
    assert servers.told == ["Failed"]


def test_a_write_whose_answer_is_lost_is_told_of(tmp_path: Path) -> None:
    servers = failing(tmp_path)
    servers.lost_answers = 1
    asyncio.run(servers.story(True, True))
    assert servers.told == ["Failed"]


def test_a_run_that_is_not_valid_is_not_told_of(tmp_path: Path) -> None:
    servers = Servers(World(manifest(nodes={"gpus": 0, "count": 2})), tmp_path)
    asyncio.run(servers.story(True, True))
    assert servers.told == []
