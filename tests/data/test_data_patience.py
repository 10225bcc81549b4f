"""A disk or store that hiccups is waited for; its files are not taken for broken ones."""

from __future__ import annotations

import errno
import logging
import pickle
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest
from tenacity import stop_after_attempt

from arlow_trainer.config import DataSection, ModelSection, SourceSection
from arlow_trainer.config.errors import ArlowError, CredentialsError, DataError, StoreError
from arlow_trainer.data import (
    BrokenSample,
    RawSample,
    StepLoader,
    decode_clip,
    decode_image,
    open_source,
    remote,
)

ATTEMPTS = 6
# The one file whose reading fails as a bad disk's does: there is nothing at address 0.
UNREADABLE = "/proc/self/mem"

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc: run it on Linux")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What is waited, without waiting it, and a handful of attempts in place of five minutes."""
    waited: list[float] = []
    quick = remote.PATIENCE.copy(sleep=waited.append, stop=stop_after_attempt(ATTEMPTS))
    monkeypatch.setattr(remote, "PATIENCE", quick)
    return waited


def clip(raw: RawSample) -> object:
    return decode_clip(raw, 4, 1)


# Stores


class Answers(BaseHTTPRequestHandler):
    """Answers with the statuses that the path asks for, one after the other: /503,503,200."""

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
def store() -> Iterator[str]:
    Answers.seen = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def read(url: str) -> bytes:
    return remote.read_remote(url, *fsspec.url_to_fs(url))


@pytest.mark.parametrize("hiccups", ["503", "503,500,429,504,408"])
def test_a_short_outage_is_waited_for(
    store: str, waits: list[float], caplog: pytest.LogCaptureFixture, hiccups: str
) -> None:
    with caplog.at_level(logging.WARNING):
        assert read(f"{store}/{hiccups},200") == b"content"
    assert len(waits) == len(hiccups.split(","))
    [told] = caplog.messages
    assert "503" in told
    assert "trying again for up to 5 minutes" in told


def test_a_long_outage_is_the_stores_fault(store: str, waits: list[float]) -> None:
    with pytest.raises(StoreError, match=r"503, .*; check the path, the endpoint and the network"):
        read(f"{store}/503")
    assert len(Answers.seen) == ATTEMPTS
    assert len(waits) == ATTEMPTS - 1


def test_an_endpoint_where_nobody_answers(waits: list[float]) -> None:
    with pytest.raises(StoreError, match="cannot be read: "):
        read("http://127.0.0.1:9/picture.jpg")
    assert waits


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, CredentialsError),
        (403, CredentialsError),
        (404, BrokenSample),
        (400, DataError),
        (410, DataError),
    ],
)
def test_a_plain_answer_is_taken_at_once(
    store: str, waits: list[float], status: int, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        read(f"{store}/{status}")
    assert waits == []


def failing(error: Exception) -> Callable[..., bytes]:
    def fail(*_: object) -> bytes:
        raise error

    return fail


@pytest.mark.parametrize("error", [ValueError("x"), TypeError("x"), OSError(errno.ENOSPC, "full")])
def test_what_no_waiting_mends_is_told_at_once(waits: list[float], error: Exception) -> None:
    with pytest.raises(DataError, match="x: cannot be read"):
        remote.read_remote("x", SimpleNamespace(cat_file=failing(error)), "x")
    assert waits == []


def test_a_librarys_own_error_is_waited_for(waits: list[float]) -> None:
    class ServiceRequestError(Exception):
        pass

    with pytest.raises(StoreError, match="x: cannot be read: no route"):
        remote.read_remote(
            "x", SimpleNamespace(cat_file=failing(ServiceRequestError("no route"))), "x"
        )
    assert len(waits) == ATTEMPTS - 1


@pytest.mark.parametrize("defect", [KeyError(-1), AssertionError(), MemoryError()])
def test_a_defect_stays_one(waits: list[float], defect: Exception) -> None:
    with pytest.raises(type(defect)):
        remote.with_retries("x", failing(defect))
    assert waits == []


# Disks


@on_linux
@pytest.mark.parametrize("decode", [decode_image, clip])
def test_a_disk_that_fails_is_no_broken_file(
    waits: list[float], decode: Callable[[RawSample], object]
) -> None:
    with pytest.raises(StoreError, match=r"sample: cannot be read: .*Input/output error") as told:
        decode(RawSample("sample", UNREADABLE))
    assert len(waits) == ATTEMPTS - 1
    assert isinstance(pickle.loads(pickle.dumps(told.value)), StoreError)


@pytest.mark.parametrize("decode", [decode_image, clip])
def test_a_file_that_may_not_be_read_is_no_broken_file(
    photographs: list[Path],
    films: list[Path],
    tmp_path: Path,
    waits: list[float],
    as_nobody: Callable[[], AbstractContextManager[None]],
    decode: Callable[[RawSample], object],
) -> None:
    file = tmp_path / "file"
    file.write_bytes((films[1] if decode is clip else photographs[3]).read_bytes())
    file.chmod(0)
    with as_nobody(), pytest.raises(CredentialsError, match=r"Permission denied.* permissions"):
        decode(RawSample("sample", str(file)))
    assert waits == []


@pytest.mark.parametrize("decode", [decode_image, clip])
def test_a_process_out_of_file_descriptors_waits_for_one(
    photographs: list[Path],
    films: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    decode: Callable[[RawSample], object],
) -> None:
    sample = RawSample("sample", str(films[1] if decode is clip else photographs[3]))
    before = decode(sample)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    waited: list[float] = []

    def free(seconds: float) -> None:
        waited.append(seconds)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    monkeypatch.setattr(remote, "PATIENCE", remote.PATIENCE.copy(sleep=free))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        after = decode(sample)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(waited) == 1
    assert np.array_equal(np.asarray(before), np.asarray(after))


@on_linux
def test_a_failing_disk_stops_a_run_rather_than_change_its_samples(
    image_folder: Path, tmp_path: Path, waits: list[float]
) -> None:
    for number in range(8):
        (tmp_path / f"{number}.jpg").symlink_to(image_folder / "rocket.jpg")
    source = {"image": open_source(SourceSection(path=str(tmp_path)), "image")}
    (tmp_path / "5.jpg").unlink()
    (tmp_path / "5.jpg").symlink_to(UNREADABLE)
    data = DataSection(image_size=56, video_probability=0)
    steps = StepLoader(data, ModelSection(), source, 0, 4, 0, 1, 4, 0, 0)
    with pytest.raises(ArlowError, match=r"5\.jpg: cannot be read") as told:
        list(islice(steps, 2))
    assert told.value.exit_code == 74
