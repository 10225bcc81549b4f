"""The webhook against a real HTTP server: slow, failing, gone, redirecting, or away."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from arlow_operator import webhook as module
from arlow_operator.notifications import Notification
from arlow_operator.webhook import Webhook

TOKEN = "T0KEN-that-nobody-may-read"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def notification(run: str = "run") -> Notification:
    time = datetime(2026, 1, 1, tzinfo=UTC)
    return Notification("Failed", "team", run, "uid", "BudgetSpent", "it crashed", 3, 40, 100, time)


class Hook:
    """A server, and a webhook that is told of it.

    Attributes:
        bodies: what was posted to the URL.
        elsewhere: requests to other paths.
        counts: what became of the notifications.
        recorded: those that were delivered.
        url: what the Secret holds.
    """

    def __init__(self, tmp_path: Path, *answers: int | Handler, waits: tuple[float, ...] = (0, 0)):
        self.bodies: list[Any] = []
        self.elsewhere = 0
        self.counts: Counter[str] = Counter()
        self.recorded: list[Notification] = []
        self.url = f"http://127.0.0.1:PORT/services/{TOKEN}"
        self._answers = list(answers)
        self._file = tmp_path / "url"
        self._waits = waits

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, int):
            return web.Response(status=answer, headers={"Location": "/elsewhere"})
        return await answer(request)

    async def _other(self, _: web.Request) -> web.StreamResponse:
        self.elsewhere += 1
        return web.Response()

    async def _record(self, sent: Notification) -> None:
        self.recorded.append(sent)

    async def story(self, tell: Callable[[Webhook], Awaitable[None]]) -> None:
        """Runs the server and the webhook, tells it something, and waits until that is sent."""
        app = web.Application()
        app.router.add_post(f"/services/{TOKEN}", self._answer)
        app.router.add_route("*", "/{path:.*}", self._other)
        runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = runner.addresses[0][1]
            self._file.write_text(self.url.replace("PORT", str(port)) + "\n")
            async with ClientSession(trust_env=False) as http:
                count = lambda result: self.counts.update([result])  # noqa: E731
                webhook = Webhook(http, self._file, count, self._record, self._waits)
                sending = asyncio.create_task(webhook.send_all())
                await tell(webhook)
                await webhook.sent(30)
                sending.cancel()
        finally:
            await runner.cleanup()

    def send(self, *notifications: Notification) -> None:
        """Tells the webhook of notifications."""

        async def tell(webhook: Webhook) -> None:
            for each in notifications:
                webhook.tell(each)

        asyncio.run(self.story(tell))


async def never(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def hangs_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


def test_notifications_are_posted_in_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hook = Hook(tmp_path, 200)
    hook.send(notification("a"), notification("b"))
    assert [body["run"] for body in hook.bodies] == ["a", "b"]
    assert hook.bodies[0] == notification("a").payload()
    assert hook.counts == {"delivered": 2}
    assert hook.recorded == [notification("a"), notification("b")]
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("answers", "tries", "result", "words"),
    [
        ((204,), 1, "delivered", ""),
        ((500, 429, 200), 3, "delivered", ""),
        ((hangs_up, 200), 2, "delivered", ""),
        ((503,), 3, "failed", "it answers 503"),
        ((404,), 1, "failed", "it answers 404"),
        ((410, 200), 1, "failed", "it answers 410"),
        ((400,), 1, "failed", "it answers 400"),
        ((302, 200), 1, "failed", "it answers 302, and redirects are not followed"),
        ((307, 200), 1, "failed", "it answers 307, and redirects are not followed"),
        ((hangs_up,), 3, "failed", "no connection (ServerDisconnectedError)"),
    ],
)
def test_an_answer_is_success_a_reason_to_try_again_or_the_end(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    answers: tuple[int | Handler, ...],
    tries: int,
    result: str,
    words: str,
) -> None:
    hook = Hook(tmp_path, *answers)
    hook.send(notification())
    assert (len(hook.bodies), hook.counts, hook.elsewhere) == (tries, {result: 1}, 0)
    assert len(hook.recorded) == (result == "delivered")
    lines = [record.getMessage() for record in caplog.records if record.name == module.__name__]
    assert len(lines) == bool(words)
    assert all(words in line and "Failed of team/run" in line for line in lines)
    assert TOKEN not in caplog.text
    assert "127.0.0.1" not in caplog.text


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "its Secret holds no http or https URL"),
        (f"ftp://127.0.0.1/{TOKEN}", "its Secret holds no http or https URL"),
        (f"file:///{TOKEN}", "its Secret holds no http or https URL"),
        (f"/services/{TOKEN}", "its Secret holds no http or https URL"),
        (f"http://[{TOKEN}/", "its Secret holds no http or https URL"),
        (f"http://127.0.0.1:99999/{TOKEN}", "its Secret holds no http or https URL"),
        (f"http://127.0.0.1:9/{TOKEN}", "no connection (ClientConnectorError)"),
        (f"https://127.0.0.1:PORT/{TOKEN}", "TLS failed"),
        (f"http://no-such-host.invalid/{TOKEN}", "no connection (ClientConnector"),
    ],
)
def test_a_url_that_cannot_be_used_is_not_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, url: str, words: str
) -> None:
    hook = Hook(tmp_path, 200)
    hook.url = url
    hook.send(notification())
    assert hook.counts == {"failed": 1}
    [line] = [record.getMessage() for record in caplog.records if record.name == module.__name__]
    assert words in line
    assert TOKEN not in caplog.text


def test_a_secret_that_is_missing_or_is_renewed_is_read_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hook = Hook(tmp_path, 200, waits=(0.5,))

    async def tell(webhook: Webhook) -> None:
        file = tmp_path / "url"
        url = file.read_text()
        file.unlink()
        webhook.tell(notification())
        await asyncio.sleep(0.1)
        file.write_text(url)

    asyncio.run(hook.story(tell))
    assert hook.counts == {"delivered": 1}


def test_telling_never_waits_and_too_many_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.2)
    hook = Hook(tmp_path, never, 200, waits=())
    seconds = 0.0

    async def tell(webhook: Webhook) -> None:
        nonlocal seconds
        webhook.tell(notification("slow"))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        for number in range(module.LONGEST_QUEUE + 3):
            webhook.tell(notification(f"run-{number}"))
        seconds = time.monotonic() - began

    asyncio.run(hook.story(tell))
    assert seconds < 0.2
    assert hook.counts == {"delivered": module.LONGEST_QUEUE, "failed": 4}
    assert "no answer within 0.2 s" in caplog.text
    assert caplog.text.count("others wait for it") == 3


def test_a_defect_ends_neither_the_operator_nor_the_notifications_that_follow(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Notification):
        def payload(self) -> dict[str, Any]:
            raise ZeroDivisionError(TOKEN)

    hook = Hook(tmp_path, 200)
    hook.send(Broken(**vars(notification())), notification())
    assert hook.counts == {"failed": 1, "delivered": 1}
    assert "a defect of the operator (ZeroDivisionError)" in caplog.text
    assert TOKEN not in caplog.text


def test_the_end_of_the_process_does_not_wait_for_long(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hook = Hook(tmp_path, never)

    async def tell(webhook: Webhook) -> None:
        webhook.tell(notification())
        await asyncio.sleep(0.05)
        began = time.monotonic()
        await webhook.sent(0.2)
        assert time.monotonic() - began < 2
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        asyncio.run(hook.story(tell))
    assert "notifications not sent before the end: 1" in caplog.text


def test_google_chat_is_sent_what_it_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GOOGLE_CHAT", "127.0.0.1")
    hook = Hook(tmp_path, 200)
    hook.send(notification())
    assert hook.bodies == [{"text": notification().text()}]


def test_without_a_webhook_nothing_is_kept() -> None:
    async def record(_: Notification) -> None:
        raise AssertionError("nothing is delivered")

    async def story() -> None:
        async with ClientSession() as http:
            webhook = Webhook(http, None, lambda _: None, record)
            assert not webhook.is_set
            for _ in range(module.LONGEST_QUEUE + 1):
                webhook.tell(notification())
            await webhook.sent(1)

    asyncio.run(story())


@pytest.fixture(autouse=True)
def all_logs(caplog: pytest.LogCaptureFixture) -> None:
    """Takes every line of every library, as an operator's log at its most talkative."""
    caplog.set_level(logging.INFO)
