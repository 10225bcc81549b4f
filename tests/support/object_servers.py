"""What the in-process servers of object stores' HTTP protocols share.

They follow the providers' references as far as `Store` and the data sets use them, and are for what
their clients do with it: `google_server`, `azure_server`, and `plain_s3_server`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

DATE = "Thu, 01 Jan 2026 00:00:00 GMT"


class Objects:
    """Objects by name, each with a generation that grows with every write."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, int]] = {}
        self._generation = 1000

    def get(self, name: str) -> tuple[bytes, int] | None:
        with self._lock:
            return self._objects.get(name)

    def put(self, name: str, data: bytes, allowed: Callable[[int], bool]) -> int | None:
        """Writes if `allowed(generation, 0 for none)`; returns the new generation."""
        with self._lock:
            if not allowed(self._objects.get(name, (b"", 0))[1]):
                return None
            self._generation += 1
            self._objects[name] = (data, self._generation)
            return self._generation

    def delete(self, name: str, allowed: Callable[[int], bool]) -> bool:
        with self._lock:
            if not allowed(self._objects.get(name, (b"", 0))[1]):
                return False
            return self._objects.pop(name, None) is not None

    def page(
        self, prefix: str, delimiter: str, after: str, count: int
    ) -> tuple[list[str], list[str], str]:
        """Names and folders with a prefix, `count` in all, that follow `after` in the bytes' order.

        Returns them and where the next page begins, "" for none. What has the delimiter after the
        prefix is a folder, which ends with it.
        """
        with self._lock:
            names = [name for name in self._objects if name.startswith(prefix)]
        found = set()
        for name in names:
            end = name.find(delimiter, len(prefix)) if delimiter else -1
            found.add((name if end < 0 else name[: end + 1], end >= 0))
        listed = sorted(found, key=lambda each: each[0].encode())
        rest = [each for each in listed if each[0].encode() > after.encode()]
        page = rest[:count]
        files = [name for name, is_folder in page if not is_folder]
        folders = [name for name, is_folder in page if is_folder]
        return files, folders, page[-1][0] if len(rest) > count else ""


class Handler(BaseHTTPRequestHandler):
    """What the protocols share."""

    protocol_version = "HTTP/1.1"
    objects: Objects

    def log_message(self, *_: object) -> None:
        pass

    @property
    def query(self) -> dict[str, str]:
        parsed = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        return {key: values[0] for key, values in parsed.items()}

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status: int, data: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def answer_content(self, data: bytes, wanted: str | None, **headers: str) -> None:
        """Answers with content, or with the range of it that a request asks for."""
        if self.command != "GET" or not wanted:
            self.answer(200, data, **headers)
            return
        start, _, end = wanted.removeprefix("bytes=").partition("-")
        part = data[int(start) : int(end) + 1 if end else None]
        if not part:
            self.answer(416, **headers)
            return
        described = f"bytes {start}-{int(start) + len(part) - 1}/{len(data)}"
        self.answer(206, part, Content_Range=described, **headers)


@contextmanager
def serving(handler: type[Handler], **shared: Any) -> Iterator[str]:
    """Yields the address of a server whose requests share an `Objects`, and `shared`."""
    own: Any = type(handler.__name__, (handler,), {"objects": Objects(), **shared})
    server = ThreadingHTTPServer(("127.0.0.1", 0), own)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
