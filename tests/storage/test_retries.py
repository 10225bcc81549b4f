"""Reading is repeated while a store or disk hiccups, and only then."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import aiohttp
import pytest

from arlow_trainer.config.errors import StoreError
from arlow_trainer.storage.connection import connect
from arlow_trainer.storage.remote_files import read_file
from arlow_trainer.storage.retries import is_transient, with_retries
from arlow_trainer.storage.timeouts import StoreTimeout
from support.client_errors import caused
from support.quick_retries import ATTEMPTS, quick_retries


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    return quick_retries(monkeypatch)


class Answers(BaseHTTPRequestHandler):
    """Answers with the statuses that the path lists, one after the other: /503,503,200."""

    seen: list[str]

    def do_GET(self) -> None:
        statuses = self.path.strip("/").split(",")
        status = statuses[min(self.seen.count(self.path), len(statuses) - 1)]
        self.seen.append(self.path)
        self.send_response(int(status))
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(b"content")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Answers.seen = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def read(url: str) -> bytes:
    return with_retries(url, lambda: read_file(*connect(url)))


def failing(error: BaseException) -> Callable[[], bytes]:
    def fail() -> bytes:
        raise error

    return fail


@pytest.mark.parametrize("hiccups", ["503", "503,500,429,504,408"])
def test_a_short_outage_is_waited_for(
    server: str, waits: list[float], caplog: pytest.LogCaptureFixture, hiccups: str
) -> None:
    with caplog.at_level(logging.WARNING):
        assert read(f"{server}/{hiccups},200") == b"content"
    assert len(waits) == len(hiccups.split(","))
    [message] = caplog.messages
    assert message.startswith(f"{server}/{hiccups},200: 503, ")
    assert "trying again for up to 5 minutes" in message


def test_a_long_outage_ends_with_its_last_failure(server: str, waits: list[float]) -> None:
    with pytest.raises(aiohttp.ClientResponseError) as raised:
        read(f"{server}/503")
    assert raised.value.status == 503
    assert len(Answers.seen) == ATTEMPTS
    assert len(waits) == ATTEMPTS - 1


def test_an_endpoint_where_nobody_answers_is_tried_again(waits: list[float]) -> None:
    with pytest.raises(aiohttp.ClientConnectionError):
        read("http://127.0.0.1:9/image.jpg")
    assert len(waits) == ATTEMPTS - 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_plain_answer_is_taken_at_once(server: str, waits: list[float], status: int) -> None:
    with pytest.raises((aiohttp.ClientResponseError, FileNotFoundError)):
        read(f"{server}/{status}")
    assert len(Answers.seen) == 1
    assert waits == []


@pytest.mark.parametrize(
    "error",
    [
        AssertionError(),
        KeyError(-1),
        MemoryError(),
        TypeError("x"),
        ValueError("x"),
        caused(ValueError("damaged"), OSError(errno.EIO, "Input/output error")),
        caused(StoreError("x"), ConnectionResetError("reset")),
        StoreTimeout("it has not answered for 300 s"),
        FileNotFoundError("x"),
        IsADirectoryError("x"),
        NotADirectoryError("x"),
        PermissionError("x"),
        OSError(errno.ENOSPC, "full"),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_waiting_cannot_mend_is_raised_at_once(
    waits: list[float], error: BaseException
) -> None:
    with pytest.raises(type(error)) as raised:
        with_retries("x", failing(error))
    assert raised.value is error
    assert waits == []


@pytest.mark.parametrize(
    "error", [OSError("no route"), OSError(errno.EIO, "Input/output error"), Exception("x")]
)
def test_what_fails_without_saying_why_is_tried_again(waits: list[float], error: Exception) -> None:
    with pytest.raises(type(error)):
        with_retries("x", failing(error))
    assert len(waits) == ATTEMPTS - 1


def test_a_write_is_repeated_only_where_the_failure_is_known_to_be_transient() -> None:
    assert is_transient(ConnectionResetError("reset"))
    assert not is_transient(OSError("no route"))
    assert not is_transient(StoreTimeout("it has not answered for 120 s"))
    assert not is_transient(caused(StoreError("x"), ConnectionResetError("reset")))
