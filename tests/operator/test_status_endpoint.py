"""What answers at a pod's address is asked briefly and believed little."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import ClientSession, web

from arlow_operator.observation import Reported
from arlow_operator.status_endpoint import MAX_BYTES, ask_status, url_at

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def ask(handler: Handler) -> Reported:
    """Returns what is made of a server's answer."""

    async def story() -> Reported:
        app = web.Application()
        app.router.add_get("/status", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = runner.addresses[0][1]
            async with ClientSession(trust_env=False) as session:
                return await ask_status(session, "127.0.0.1", port)
        finally:
            await runner.cleanup()

    return asyncio.run(story())


async def well(_: web.Request) -> web.StreamResponse:
    return web.json_response({"run": "a", "phase": "training", "step": 7, "newKey": 1})


async def redirects(_: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("http://169.254.169.254/latest/meta-data")


async def is_no_status(_: web.Request) -> web.StreamResponse:
    return web.json_response({"step": "seven"})


async def has_no_end_in_sight(_: web.Request) -> web.StreamResponse:
    return web.Response(text='{"run": "a", "phase": "training", "etaSeconds": Infinity}')


async def counts_too_far(_: web.Request) -> web.StreamResponse:
    return web.json_response({"run": "a", "phase": "training", "step": 10**30})


async def never_ends(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(10_000):
        await response.write(b"x" * 4096)
    return response


async def is_slow(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


def test_a_status_is_read_and_unknown_keys_are_ignored() -> None:
    reported = ask(well)
    assert reported.status is not None
    assert reported.status.step == 7


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (redirects, "it answers 302"),
        (is_no_status, "it sends no status"),
        (has_no_end_in_sight, "it sends numbers that are none or out of range"),
        (counts_too_far, "it sends numbers that are none or out of range"),
        (never_ends, f"it sends more than {MAX_BYTES:,} bytes"),
        (is_slow, "no answer within 2 s"),
    ],
)
def test_any_other_answer_is_none(handler: Handler, problem: str) -> None:
    reported = ask(handler)
    assert reported.status is None
    assert problem in reported.problem


def test_a_port_where_nothing_listens_is_told_from_one_that_is_cut_off() -> None:
    async def story() -> Reported:
        async with ClientSession(trust_env=False) as session:
            return await ask_status(session, "127.0.0.1", 9)

    reported = asyncio.run(story())
    assert (reported.refused, reported.problem) == (True, "nothing listens at its port")


def test_addresses_of_both_kinds_make_urls() -> None:
    assert url_at("10.0.0.1", "/status", 80) == "http://10.0.0.1:80/status"
    assert url_at("::1", "/status", 80) == "http://[::1]:80/status"
