"""Rank 0's HTTP server: `/metrics` for Prometheus, `/status` for people and the operator.

`/stacks` has every process of the run write its stacks to the log.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Lock, Thread
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from arlow_trainer.config.status import RunStatus

MAX_INTERVAL_S = {"/metrics": 60.0, "/status": 15.0}
"""The longest interval between requests of a Prometheus, of a watcher; then it counts as ended."""


STACKS_INTERVAL_S = 10.0
"""Stacks are written that often at most, whoever asks."""


class TelemetryServer:
    """Serves `/metrics`, `/status`, `/stacks` and `/healthz` on every interface, on a thread.

    Raises OSError when the port cannot be bound.
    """

    def __init__(
        self,
        port: int,
        registry: CollectorRegistry,
        status: Callable[[], RunStatus],
        write_stacks: Callable[[], None] | None = None,
    ) -> None:
        self._requested: dict[str, float] = {}
        self._answered: dict[str, float] = {}
        self._changed = Condition()
        self._server = _DualStackServer(
            ("", port), _handler(registry, status, self._answering, _rarely(write_stacks))
        )
        self._thread = Thread(
            target=self._server.serve_forever, args=(0.1,), name="telemetry-server", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that is served; the one requested, unless that was 0."""
        return int(self._server.server_address[1])

    @contextmanager
    def _answering(self, path: str) -> Iterator[None]:
        """Records a request before it is answered: a reader that has its answer is known."""
        with self._changed:
            self._requested[path] = requested = time.monotonic()
        yield
        with self._changed:
            # A slow answer must not hide that a later request was answered before it.
            self._answered[path] = max(requested, self._answered.get(path, requested))
            self._changed.notify_all()

    def wait_for_readers(self, since: float, timeout_s: float) -> None:
        """Waits until each recent reader has what was true at `since`, a time of `time.monotonic`.

        Returns after `timeout_s` seconds at most.
        """
        start = time.monotonic()
        with self._changed:
            for path, interval in MAX_INTERVAL_S.items():
                if start - self._requested.get(path, -math.inf) < interval:
                    left = start + min(timeout_s, interval) - time.monotonic()
                    self._changed.wait_for(
                        partial(self._answered_since, path, since), max(0.0, left)
                    )

    def _answered_since(self, path: str, since: float) -> bool:
        """Whether a request that came after `since` was answered."""
        return self._answered.get(path, -math.inf) >= since

    def close(self) -> None:
        """Stops serving and frees the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _DualStackServer(ThreadingHTTPServer):
    """A threading server that answers IPv4 and, where the machine has it, IPv6."""

    daemon_threads = True
    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # HTTPServer.server_bind also looks up the host's name, which can take seconds in a pod.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "localhost", self.server_address[1]


def _rarely(act: Callable[[], None] | None) -> Callable[[], bool] | None:
    """Returns what acts at most once in STACKS_INTERVAL_S and says whether it did."""
    if act is None:
        return None
    lock, last = Lock(), -math.inf

    def acted() -> bool:
        nonlocal last
        with lock:
            if time.monotonic() - last < STACKS_INTERVAL_S:
                return False
            last = time.monotonic()
        act()
        return True

    return acted


def _handler(
    registry: CollectorRegistry,
    status: Callable[[], RunStatus],
    answering: Callable[[str], AbstractContextManager[None]],
    write_stacks: Callable[[], bool] | None,
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10  # a client that sends no more does not block its thread forever

        def do_GET(self) -> None:
            match path := self.path.partition("?")[0]:
                case "/metrics":
                    encode, content_type = choose_encoder(self.headers.get("Accept") or "")
                    with answering(path):
                        self._answer(HTTPStatus.OK, encode(registry), content_type)
                case "/status":
                    with answering(path):
                        body = status().model_dump_json(by_alias=True).encode()
                        self._answer(HTTPStatus.OK, body, "application/json")
                case "/stacks" if write_stacks is not None and self.command == "GET":
                    if write_stacks():
                        self._answer(HTTPStatus.OK, b"stacks are written to the log\n")
                    else:
                        text = b"stacks were written less than 10 s ago\n"
                        self._answer(HTTPStatus.TOO_MANY_REQUESTS, text)
                case "/healthz":
                    self._answer(HTTPStatus.OK, b"ok\n")
                case _:
                    text = b"not found; try /metrics, /status, /stacks or /healthz\n"
                    self._answer(HTTPStatus.NOT_FOUND, text)

        do_HEAD = do_GET

        def _answer(
            self, code: HTTPStatus, body: bytes, content_type: str = "text/plain; charset=utf-8"
        ) -> None:
            self.send_response(code)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Logs nothing: a scrape is not worth a line."""

    return Handler
