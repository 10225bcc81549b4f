"""Small in-process servers of the HTTP protocols of object stores, with their conditional requests.

Google's JSON API and Azure's Blob service follow the providers' references as far as `Store` uses
them. `plain_s3` is a server of S3's that ignores conditions, as older ones do; it checks no
signatures.
"""

from __future__ import annotations

import email
import email.policy
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "YXJsb3ctdGVzdA=="


class Objects:
    """Objects by name, each with a generation that grows with every write."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, int]] = {}
        self._generation = 1000

    def get(self, name: str) -> tuple[bytes, int] | None:
        with self._lock:
            return self._objects.get(name)

    def names(self) -> list[str]:
        with self._lock:
            return sorted(self._objects)

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


class Handler(BaseHTTPRequestHandler):
    """What the three protocols share."""

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


class GoogleHandler(Handler):
    """https://cloud.google.com/storage/docs/json_api/v1/objects"""

    def _allowed(self, generation: int) -> bool:
        expected = self.query.get("ifGenerationMatch")
        return expected is None or int(expected) == generation

    def _name(self) -> str:
        return unquote(urlsplit(self.path).path.partition("/o/")[2])

    def do_POST(self) -> None:
        body, name = self.body(), self.query.get("name", "")
        if self.query["uploadType"] == "multipart":
            head = f"Content-Type: {self.headers['Content-Type']}\n\n".encode()
            parts = email.message_from_bytes(head + body, policy=email.policy.HTTP).get_payload()
            name = json.loads(parts[0].get_payload(decode=True))["name"]  # type: ignore[index,union-attr]
            body = body.rpartition(b"\n--==0==--")[0].split(b"\n\n", 2)[2]
        generation = self.objects.put(name, body, self._allowed)
        if generation is None:
            self._fail(412, "conditionNotMet")
        else:
            self._describe(name, body, generation)

    def do_GET(self) -> None:
        name = self._name()
        found = self.objects.get(name)
        if urlsplit(self.path).path.endswith("/o"):
            prefix = self.query.get("prefix", "")
            listed = [{"name": each} for each in self.objects.names() if each.startswith(prefix)]
            answer = json.dumps({"kind": "storage#objects", "items": listed})
            self.answer(200, answer.encode(), Content_Type="application/json")
        elif found is None:
            self._fail(404, "notFound")
        elif self.query.get("alt") == "media":
            self.answer(200, found[0], x_goog_generation=str(found[1]))
        else:
            self._describe(name, *found)

    def do_DELETE(self) -> None:
        name = self._name()
        if self.objects.get(name) is None:
            self._fail(404, "notFound")
        elif self.objects.delete(name, self._allowed):
            self.answer(204)
        else:
            self._fail(412, "conditionNotMet")

    def _describe(self, name: str, data: bytes, generation: int) -> None:
        described = {
            "kind": "storage#object",
            "name": name,
            "size": str(len(data)),
            "generation": str(generation),
        }
        self.answer(200, json.dumps(described).encode(), Content_Type="application/json")

    def _fail(self, status: int, reason: str) -> None:
        error = {"error": {"code": status, "message": reason, "errors": [{"reason": reason}]}}
        self.answer(status, json.dumps(error).encode(), Content_Type="application/json")


class AzureHandler(Handler):
    """https://learn.microsoft.com/rest/api/storageservices/blob-service-rest-api"""

    def _allowed(self, generation: int) -> bool:
        if self.headers.get("If-None-Match") == "*" and generation:
            return False
        expected = self.headers.get("If-Match")
        return expected is None or expected == f'"{generation:#x}"'

    def _name(self) -> str:
        return unquote(urlsplit(self.path).path)

    def do_PUT(self) -> None:
        generation = self.objects.put(self._name(), self.body(), self._allowed)
        if generation is not None:
            self.answer(201, ETag=f'"{generation:#x}"', Last_Modified=_DATE)
        elif self.headers.get("If-None-Match"):
            self._fail(409, "BlobAlreadyExists")
        else:
            self._fail(412, "ConditionNotMet")

    def do_GET(self) -> None:
        found = self.objects.get(self._name())
        if found is None:
            self._fail(404, "BlobNotFound")
            return
        data, generation = found
        described = {
            "ETag": f'"{generation:#x}"',
            "Last_Modified": _DATE,
            "Content_Type": "application/octet-stream",
            "x_ms_blob_type": "BlockBlob",
            "Accept_Ranges": "bytes",
        }
        if self.command == "GET" and self.headers.get("x-ms-range"):
            start, _, end = self.headers["x-ms-range"].removeprefix("bytes=").partition("-")
            part = data[int(start) : int(end) + 1]
            last = int(start) + len(part) - 1
            described["Content_Range"] = f"bytes {start}-{last}/{len(data)}"
            self.answer(206, part, **described)
        else:
            self.answer(200, data, **described)

    do_HEAD = do_GET

    def do_DELETE(self) -> None:
        if self.objects.get(self._name()) is None:
            self._fail(404, "BlobNotFound")
        elif self.objects.delete(self._name(), self._allowed):
            self.answer(202)
        else:
            self._fail(412, "ConditionNotMet")

    def _fail(self, status: int, code: str) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
        self.answer(status, text.encode(), x_ms_error_code=code, Content_Type="application/xml")


class PlainS3Handler(Handler):
    """S3 without conditional requests: their headers are ignored."""

    def _name(self) -> str:
        return unquote(urlsplit(self.path).path)

    def do_PUT(self) -> None:
        data = self.body()
        if "aws-chunked" in self.headers.get("Content-Encoding", ""):
            data = _without_chunks(data)
        self.objects.put(self._name(), data, lambda _: True)
        self.answer(200, ETag=_etag(data))

    def do_GET(self) -> None:
        found = self.objects.get(self._name())
        if found is None:
            self.answer(404, b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>")
        else:
            self.answer(200, found[0], ETag=_etag(found[0]), Last_Modified=_DATE)

    do_HEAD = do_GET

    def do_DELETE(self) -> None:
        self.objects.delete(self._name(), lambda _: True)
        self.answer(204)


_DATE = "Thu, 01 Jan 2026 00:00:00 GMT"


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def _without_chunks(data: bytes) -> bytes:
    content = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        count = int(size.partition(b";")[0], 16)
        if not count:
            break
        content, data = content + data[:count], data[count + 2 :]
    return content


@contextmanager
def _serving(handler: type[Handler]) -> Iterator[str]:
    own: Any = type(handler.__name__, (handler,), {"objects": Objects()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), own)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def google_server() -> Iterator[dict[str, Any]]:
    """Yields the options of a store at gs://."""
    with _serving(GoogleHandler) as url:
        yield {"endpoint_url": url, "token": "anon"}


@contextmanager
def azure_server() -> Iterator[dict[str, Any]]:
    """Yields the options of a store at az://."""
    with _serving(AzureHandler) as url:
        yield {
            "connection_string": f"DefaultEndpointsProtocol=http;AccountName={AZURE_ACCOUNT};"
            f"AccountKey={AZURE_KEY};BlobEndpoint={url}/{AZURE_ACCOUNT};"
        }


@contextmanager
def plain_s3_server() -> Iterator[dict[str, Any]]:
    """Yields the options of a store at s3:// whose server ignores conditions."""
    with _serving(PlainS3Handler) as url:
        yield {"endpoint_url": url, "key": "key", "secret": "secret"}
