"""A proxy of the API server that does to requests what networks and API servers do, at random."""

from __future__ import annotations

import asyncio
import random
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

SHARE = 0.06
# Longer than the operator waits for an answer.
LATE_S = 12.0
CODES = (409, 410, 422, 429, 500)
FAULTS = ("refused", "unanswered", "stale") * 4 + ("late", "killed", "killed after")
WATCH_FAULTS = ("missing", "duplicate", "cut") * 3 + ("frozen",)
# Of a watch's events.
WATCH_SHARE = 0.1


class FaultyProxy:
    """Passes requests on, but for a share of them.

    One is refused, or passed on and not answered, or answered too late, or answered with what was
    read by the request before; or the client's process is killed before or after it. Of a watch,
    events are left out or sent twice, and the watch is cut or frozen.

    Attributes:
        url: where it listens.
        faults: how many there were, by kind.
        kill: kills the client's process.
    """

    def __init__(self, target: str, seed: int) -> None:
        self.url = ""
        self.faults: Counter[str] = Counter()
        self.kill: Callable[[], None] = lambda: None
        self._target = target
        self._chance = random.Random(seed)
        self._last: dict[str, bytes] = {}
        self._session: ClientSession | None = None

    async def serve(
        self, started: Callable[[asyncio.AbstractEventLoop, asyncio.Event], None]
    ) -> None:
        """Serves until the event is set that `started` is told of."""
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
        stop = asyncio.Event()
        connector = TCPConnector(ssl=_unverified(), limit=0)
        async with ClientSession(connector=connector, read_bufsize=2**20) as self._session:
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            started(asyncio.get_running_loop(), stop)
            await stop.wait()
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch"):
            return await self._watch(request)
        body = await request.read()
        question = request.path_qs if request.method == "GET" else ""
        kind = self._chance.choice(FAULTS) if self._chance.random() < SHARE else ""
        if kind == "stale" and question not in self._last:
            kind = ""
        if kind:
            self.faults[kind] += 1
        if kind == "killed":
            self.kill()
            return _cut(request)
        if kind == "refused":
            return _refusal(self._chance.choice(CODES))
        if kind == "stale":
            return web.Response(body=self._last[question], content_type="application/json")
        assert self._session is not None
        async with self._session.request(
            request.method,
            self._target + request.path_qs,
            headers=_headers(request),
            data=body or None,
        ) as answer:
            content = await answer.read()
        if question and answer.status == 200:
            self._last[question] = content
        if kind == "killed after":
            self.kill()
        if kind in ("killed after", "unanswered"):
            return _cut(request)
        if kind == "late":
            await asyncio.sleep(LATE_S)
        return web.Response(status=answer.status, body=content, content_type="application/json")

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        assert self._session is not None
        async with self._session.get(
            self._target + request.path_qs,
            headers=_headers(request),
            timeout=ClientTimeout(total=None),
        ) as answer:
            response = web.StreamResponse(status=answer.status)
            response.content_type = "application/json"
            await response.prepare(request)
            async for line in answer.content:
                kind = ""
                if self._chance.random() < WATCH_SHARE:
                    kind = self._chance.choice(WATCH_FAULTS)
                    self.faults[f"watch {kind}"] += 1
                if kind == "cut":
                    break
                if kind == "frozen":
                    # Until the client has had enough of it.
                    await asyncio.Event().wait()
                if kind != "missing":
                    await response.write(line * 2 if kind == "duplicate" else line)
            return response


@contextmanager
def faulty_proxy(target: str, seed: int) -> Iterator[FaultyProxy]:
    """Runs a proxy of an API server in a thread."""
    proxy = FaultyProxy(target, seed)
    ready = threading.Event()
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def started(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
        running.append((loop, stop))
        ready.set()

    thread = threading.Thread(target=lambda: asyncio.run(proxy.serve(started)), daemon=True)
    thread.start()
    assert ready.wait(30)
    [(loop, stop)] = running
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)


def _unverified() -> ssl.SSLContext:
    """Returns a context for the API server of a test, which the caller has chosen by its URL."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _headers(request: web.Request) -> dict[str, str]:
    passed = ("Authorization", "Content-Type", "Accept")
    return {name: request.headers[name] for name in passed if name in request.headers}


def _cut(request: web.Request) -> web.Response:
    if request.transport:
        request.transport.close()
    return web.Response()


def _refusal(code: int) -> web.Response:
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
    return web.json_response(
        status | {"reason": "Injected", "message": f"injected {code}"}, status=code
    )
