"""An HTTP server that answers for ArlowPretrain objects as the API server does: lists, watches."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

ALL = "/apis/arlow.dev/v1alpha1/arlowpretrains"
END = "end"


class KubernetesApi:
    """What the server answers.

    Attributes:
        objects: that a list has.
        refusal: code and message of all answers; None where nothing is refused.
        watched: whether a watch is allowed.
        asked: paths with their queries, in order.
    """

    def __init__(self, objects: Sequence[Mapping[str, Any]]) -> None:
        self.objects = list(objects)
        self.refusal: tuple[int, str] | None = None
        self.watched = True
        self.asked: list[str] = []
        self._events: queue.Queue[Any] = queue.Queue()

    def tell(self, kind: str, body: Mapping[str, Any]) -> None:
        """Sends an event to the watch."""
        self._events.put({"type": kind, "object": body})

    def end_watch(self) -> None:
        """Ends the watch, as the server does now and then."""
        self._events.put(END)

    def events(self) -> Iterator[Any]:
        """Yields the events of one watch."""
        while (event := self._events.get()) != END:
            yield event


@contextmanager
def running_api(objects: Sequence[Mapping[str, Any]]) -> Iterator[tuple[KubernetesApi, str]]:
    """Runs the server; yields what it answers, and its URL."""
    api = KubernetesApi(objects)

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            api.asked.append(self.path)
            parts = urlsplit(self.path)
            if api.refusal:
                code, message = api.refusal
                self._send(code, {"kind": "Status", "code": code, "message": message})
            elif "watch" in parse_qs(parts.query):
                if api.watched:
                    self._stream()
                else:
                    self._send(403, {"message": "cannot watch"})
            else:
                self._send(
                    200, {"items": self._of(parts.path), "metadata": {"resourceVersion": "9"}}
                )

        def _of(self, path: str) -> list[Mapping[str, Any]]:
            if path == ALL:
                return api.objects
            namespace = path.split("/")[5]
            return [each for each in api.objects if each["metadata"]["namespace"] == namespace]

        def _send(self, code: int, body: object) -> None:
            content = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _stream(self) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for event in api.events():
                line = json.dumps(event).encode() + b"\n"
                self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield api, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_kubeconfig(path: Path, server: str, namespace: str = "team") -> Path:
    """Writes a kubeconfig whose context is in a namespace, and returns its path."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [
            {"name": "c", "context": {"cluster": "c", "user": "u", "namespace": namespace}}
        ],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
    }
    path.write_text(json.dumps(config))
    return path
