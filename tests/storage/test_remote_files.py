"""Reading and listing what others stored, against the real S3 server and a slow one."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest
import s3fs

from arlow_trainer.storage import remote_files
from arlow_trainer.storage.remote_files import list_files, read_file
from arlow_trainer.storage.timeouts import StoreTimeout
from support.s3_server import S3


@pytest.fixture
def folder(s3: S3) -> tuple[Any, str]:
    return s3fs.S3FileSystem(**s3.options), f"{s3.bucket}/{uuid.uuid4().hex}"


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 200, 250])
def test_a_file_is_read_in_parts(
    folder: tuple[Any, str], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(remote_files, "READ_PART", 100)
    fs, root = folder
    content = bytes(i % 251 for i in range(size))
    fs.pipe_file(f"{root}/file", content)
    assert read_file(fs, f"{root}/file") == content
    assert list_files(fs, root) == ["file"]


class Slow:
    """A file system of one file, which answers each request after a while."""

    async_impl = False
    protocol = "slow"

    def __init__(self, content: bytes, seconds: float) -> None:
        self._content, self._seconds = content, seconds

    def cat_file(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        time.sleep(self._seconds)
        return self._content[start:end]

    def info(self, path: str) -> dict[str, int]:
        return {"size": len(self._content)}


class SlowAsync(Slow):
    """The same as a client on fsspec's event loop, whose waits are bounded."""

    async_impl = True

    def __init__(self, content: bytes, seconds: float) -> None:
        from fsspec.asyn import get_loop

        super().__init__(content, seconds)
        self.loop = get_loop()

    async def _cat_file(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        import asyncio

        await asyncio.sleep(self._seconds)
        return self._content[start:end]

    async def _info(self, path: str) -> dict[str, int]:
        return {"size": len(self._content)}


def test_a_file_may_take_long_while_its_parts_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_files, "READ_PART", 10)
    monkeypatch.setattr(remote_files, "READ_TIMEOUT_S", 0.5)
    content = bytes(range(80))
    began = time.monotonic()
    assert read_file(SlowAsync(content, 0.1), "file") == content
    assert time.monotonic() - began > 0.5
    with pytest.raises(StoreTimeout):
        read_file(SlowAsync(content, 5.0), "file")
