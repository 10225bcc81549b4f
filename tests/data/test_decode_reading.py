"""A disk or store that hiccups is waited for; its files are not taken for broken ones."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from arlow_trainer.config import DataSection, SourceSection
from arlow_trainer.config.errors import ArlowError, CredentialsError, DataError, StoreError
from arlow_trainer.data import (
    BrokenSample,
    RawSample,
    decode_clip,
    decode_image,
    open_source,
)
from arlow_trainer.data.decode import read_sample
from arlow_trainer.storage import retries
from support.loaders import one_rank_loader
from support.quick_retries import ATTEMPTS, quick_retries

# The one file whose reading fails as a bad disk's does: there is nothing at address 0.
UNREADABLE = "/proc/self/mem"

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc: run it on Linux")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    return quick_retries(monkeypatch)


def clip(raw: RawSample) -> object:
    return decode_clip(raw, 4, 1)


def failing(error: Exception) -> Callable[[], bytes]:
    def fail() -> bytes:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (FileNotFoundError("x"), BrokenSample, "sample: the file is gone"),
        (NotADirectoryError("x"), BrokenSample, "sample: the file is gone"),
        (PermissionError("denied"), CredentialsError, "sample: access was refused: denied; check"),
        (
            OSError(errno.ENOSPC, "full"),
            DataError,
            "sample: cannot be read: .*full; check the path",
        ),
        (IsADirectoryError("x"), DataError, "sample: cannot be read: x; check the path"),
        (BrokenSample("sample", "damaged"), BrokenSample, "sample: damaged"),
        (StoreError("out of reach"), StoreError, "^out of reach$"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_waiting_cannot_mend_is_reported_at_once(
    waits: list[float], error: Exception, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message) as raised:
        read_sample("sample", failing(error))
    assert type(raised.value) is kind
    assert waits == []


def test_what_fails_without_saying_why_is_tried_again_and_is_no_broken_file(
    waits: list[float],
) -> None:
    with pytest.raises(StoreError, match="sample: cannot be read: no route; check the path, the"):
        read_sample("sample", failing(OSError("no route")))
    assert len(waits) == ATTEMPTS - 1


@pytest.mark.parametrize(
    "bug", [KeyError(-1), AssertionError(), MemoryError(), ValueError("x"), TypeError("x")]
)
def test_a_bug_is_not_taken_for_a_disks_error(waits: list[float], bug: Exception) -> None:
    with pytest.raises(type(bug)) as raised:
        read_sample("sample", failing(bug))
    assert raised.value is bug
    assert waits == []


@on_linux
@pytest.mark.parametrize("decode", [decode_image, clip])
def test_a_disk_that_fails_is_no_broken_file(
    waits: list[float], decode: Callable[[RawSample], object]
) -> None:
    with pytest.raises(StoreError, match=r"sample: cannot be read: .*Input/output error") as raised:
        decode(RawSample("sample", UNREADABLE))
    assert len(waits) == ATTEMPTS - 1
    assert isinstance(pickle.loads(pickle.dumps(raised.value)), StoreError)


@pytest.mark.parametrize("decode", [decode_image, clip])
def test_a_file_that_nobody_may_read_is_a_broken_one(
    photographs: list[Path],
    videos: list[Path],
    tmp_path: Path,
    waits: list[float],
    as_nobody: Callable[[], AbstractContextManager[None]],
    decode: Callable[[RawSample], object],
) -> None:
    file = tmp_path / "file"
    file.write_bytes((videos[1] if decode is clip else photographs[3]).read_bytes())
    file.chmod(0)
    with as_nobody(), pytest.raises(BrokenSample, match="sample: Permission denied"):
        decode(RawSample("sample", str(file)))
    assert waits == []


@pytest.mark.parametrize("decode", [decode_image, clip])
def test_a_damaged_file_is_broken_at_once(
    tmp_path: Path, waits: list[float], decode: Callable[[RawSample], object]
) -> None:
    (tmp_path / "file").write_bytes(b"damaged")
    with pytest.raises(BrokenSample, match=r"^sample: "):
        decode(RawSample("sample", str(tmp_path / "file")))
    assert waits == []


@pytest.mark.parametrize("decode", [decode_image, clip])
def test_a_process_out_of_file_descriptors_waits_for_one(
    photographs: list[Path],
    videos: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    decode: Callable[[RawSample], object],
) -> None:
    sample = RawSample("sample", str(videos[1] if decode is clip else photographs[3]))
    before = decode(sample)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    waited: list[float] = []

    def free(seconds: float) -> None:
        waited.append(seconds)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    monkeypatch.setattr(retries, "RETRYING", retries.RETRYING.copy(sleep=free))
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
    steps = one_rank_loader(data, source, batch=4, workers=0)
    with pytest.raises(ArlowError, match=r"5\.jpg: cannot be read") as raised:
        list(islice(steps, 2))
    assert raised.value.exit_code == 74


@pytest.mark.parametrize("name", ["a.jpg", "a.mp4"])
def test_a_file_that_never_opens_is_named(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    raw = RawSample(name, str(tmp_path / name))
    with pytest.raises(BrokenSample, match=rf"{name}.* no regular file"):
        decode_image(raw) if name == "a.jpg" else decode_clip(raw, 1, 1)
