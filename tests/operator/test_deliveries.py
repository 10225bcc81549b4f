"""What an operator knows of the notifications that an earlier one has sent, by events."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client
from world import World, started

from arlow_operator.api import Api
from arlow_operator.apply import record_delivery
from arlow_operator.notifications import SENT_WITHIN, Notification, recent_notifications
from arlow_operator.observe import undelivered
from arlow_operator.resource import read_run

EVENTS = "/api/v1/namespaces/team/events"


def failed() -> World:
    """Returns a run that has failed."""
    world = started()
    world.end(world.pod, 78)
    world.passes()
    return world


class EventServer:
    """The events of a namespace, as the API server keeps them.

    Attributes:
        events: that were created.
        code: of all answers; 200 where they are well.
    """

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.code = 200

    async def _create(self, request: web.Request) -> web.Response:
        self.events.append(await request.json())
        return web.json_response(self.events[-1], status=self.code)

    async def _list(self, request: web.Request) -> web.Response:
        uid = request.query["fieldSelector"].removeprefix("involvedObject.uid=")
        found = [each for each in self.events if each["involvedObject"]["uid"] == uid]
        return web.json_response({"items": found}, status=self.code)

    def ask(self, world: World, *, record: bool = False) -> list[Notification]:
        """Returns what a new operator finds undelivered; with `record` it is delivered then."""

        async def story() -> list[Notification]:
            app = web.Application()
            app.router.add_post(EVENTS, self._create)
            app.router.add_get(EVENTS, self._list)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            try:
                site = web.TCPSite(runner, "127.0.0.1", 0)
                await site.start()
                host = f"http://127.0.0.1:{runner.addresses[0][1]}"
                api = Api(client.ApiClient(client.Configuration(host=host)))
                try:
                    run, status = read_run(world.body)
                    found = await undelivered(api, run, status, world.now)
                    for each in found if record else ():
                        await record_delivery(api, each)
                    return found
                finally:
                    await api.close()
            finally:
                await runner.cleanup()

        return asyncio.run(story())


def test_what_was_delivered_is_not_sent_again() -> None:
    server, world = EventServer(), failed()
    assert [each.event for each in server.ask(world, record=True)] == ["Failed"]
    assert server.ask(world) == []
    [event] = server.events
    assert (event["type"], event["reason"]) == ("Normal", "Notified")
    assert event["message"] == "the webhook was told of Failed at 2026-01-01T00:00:00Z"
    assert event["involvedObject"]["name"] == "run"


def test_a_later_failure_of_the_same_run_is_another() -> None:
    server, world = EventServer(), failed()
    server.ask(world, record=True)
    world.wait(5)
    world.body["metadata"]["annotations"]["arlow.dev/retry"] = world.now.isoformat()
    world.passes()
    assert server.ask(world) == []
    world.end(world.pod, 78)
    world.passes()
    [found] = server.ask(world)
    assert found.time == world.now


@pytest.mark.parametrize("code", [403, 500])
def test_where_events_cannot_be_read_twice_is_better_than_never(code: int) -> None:
    server, world = EventServer(), failed()
    server.code = code
    assert [each.event for each in server.ask(world, record=True)] == ["Failed"]


def test_what_is_long_ago_is_left() -> None:
    world = failed()
    run, status = read_run(world.body)
    soon = world.now + SENT_WITHIN - timedelta(seconds=1)
    assert [each.event for each in recent_notifications(run, status, soon)] == ["Failed"]
    assert not list(recent_notifications(run, status, world.now + SENT_WITHIN))


def test_a_run_that_trains_is_not_asked_about() -> None:
    server = EventServer()
    server.code = 500
    assert server.ask(started()) == []
