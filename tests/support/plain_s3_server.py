"""A server of S3's protocol that ignores conditions, as older ones do; it checks no signatures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from support.object_servers import DATE, Handler, serving


class _Handler(Handler):
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
            self.answer(200, found[0], ETag=_etag(found[0]), Last_Modified=DATE)

    do_HEAD = do_GET

    def do_DELETE(self) -> None:
        self.objects.delete(self._name(), lambda _: True)
        self.answer(204)


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
def plain_s3_server() -> Iterator[dict[str, Any]]:
    """Yields the options of a store at s3:// whose server ignores conditions."""
    with serving(_Handler) as url:
        yield {"endpoint_url": url, "key": "key", "secret": "secret"}
