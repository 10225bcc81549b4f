"""One odd file is a broken one, named; what is whole in it is used; it neither hangs nor ends."""

from __future__ import annotations

import io
import os
import socket
import struct
import tempfile
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from arlow_trainer.data import BrokenSample, RawSample, decode_clip, decode_image, video
from arlow_trainer.data import decode as decoding
from arlow_trainer.data.png import without_side_data
from arlow_trainer.storage.remote_files import RemoteFile
from support.quick_retries import quick_retries

Make = Callable[[Path], object]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    return quick_retries(monkeypatch)


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _closed(path: Path) -> None:
    path.write_bytes(b"x")
    path.chmod(0)


def _holes(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


def _listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(path))


ODD: dict[str, tuple[Make, str]] = {
    "empty": (Path.touch, ""),
    "folder": (Path.mkdir, "directory"),
    "link to a folder": (lambda path: path.symlink_to(path.parent), "directory"),
    "loop": (_loop, "symbolic links"),
    "dangling link": (lambda path: path.symlink_to("gone"), "the file is gone"),
    "closed": (_closed, "Permission denied"),
    "fifo": (os.mkfifo, "no regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "no regular file"),
    "socket": (_listening, ""),
    "a terabyte of nothing": (_holes, ""),
    "garbage": (lambda path: path.write_bytes(bytes(range(256)) * 40), ""),
}


@pytest.mark.parametrize("name", ["x.jpg", "x.mp4", "x.ts"])
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_file_is_broken_at_once(
    waits: list[float],
    as_nobody: Callable[[], AbstractContextManager[None]],
    odd: str,
    name: str,
) -> None:
    make, reason = ODD[odd]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        make(Path(folder) / name)
        raw = RawSample(name, str(Path(folder) / name))
        with as_nobody(), pytest.raises(BrokenSample, match=rf"^{name}: .*{reason}"):
            decode_image(raw) if name == "x.jpg" else decode_clip(raw, 2, 1)
    assert waits == []


def png(**options: object) -> bytes:
    stored = io.BytesIO()
    pixels = np.arange(12 * 8 * 3, dtype=np.uint8).reshape(8, 12, 3)
    Image.fromarray(pixels).save(stored, "PNG", **options)
    return stored.getvalue()


def with_chunk(content: bytes, kind: bytes, data: bytes) -> bytes:
    """A PNG file with a chunk after its header."""
    chunk = struct.pack(">I", len(data)) + kind + data
    chunk += struct.pack(">I", zlib.crc32(kind + data))
    return content[:33] + chunk + content[33:]


def _large_text() -> bytes:
    info = PngInfo()
    info.add_text("comment", "x" * (2 * 2**20), zip=True)
    return png(pnginfo=info)


SIDE_DATA = {
    "a profile over 1 MB": lambda: png(icc_profile=bytes(2 * 2**20)),
    "text over 1 MB": _large_text,
    "a damaged profile": lambda: with_chunk(png(), b"iCCP", b"name\0\0damaged"),
    "a damaged size of pixels": lambda: with_chunk(png(), b"pHYs", b"1"),
    "damaged EXIF": lambda: with_chunk(png(), b"eXIf", b"MM\0*\0\0\0\x08\xff\xff"),
}


@pytest.mark.parametrize("name", SIDE_DATA)
def test_a_picture_whose_side_data_alone_is_bad_is_used(name: str) -> None:
    decoded = decode_image(RawSample("x.png", SIDE_DATA[name]()))
    assert np.array_equal(np.asarray(decoded), np.asarray(decode_image(RawSample("y", png()))))


def test_damaged_pixels_are_not_hidden_by_that() -> None:
    content = png(icc_profile=bytes(2 * 2**20))
    for damaged in (content[:-60], content[:60]):
        with pytest.raises(BrokenSample):
            decode_image(RawSample("x.png", damaged))
    assert without_side_data(b"GIF89a") is None


def test_a_file_larger_than_an_image_may_be_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "MAX_IMAGE_BYTES", 50)
    (tmp_path / "x.png").write_bytes(png())
    remote = RemoteFile(None, "x.png", 1000, b"x" * 10)
    for content in (str(tmp_path / "x.png"), remote):
        with pytest.raises(BrokenSample, match=r"x\.png: has [0-9,]+ bytes, more than 50"):
            decode_image(RawSample("x.png", content))


def test_a_jpeg_of_thousands_of_scans_is_not_decoded() -> None:
    stored = io.BytesIO()
    Image.new("L", (2000, 2000), 77).save(stored, "JPEG", progressive=True)
    content = stored.getvalue()
    assert decode_image(RawSample("x.jpg", content)).size == (2000, 2000)
    at = content.rindex(b"\xff\xda")
    many = content[:at] + content[at:-2] * 3000 + content[-2:]
    with pytest.raises(BrokenSample, match=r"x\.jpg: has 3,005 scans of 2000 x 2000 pixels"):
        decode_image(RawSample("x.jpg", many))


def test_a_video_that_takes_too_long_is_broken(
    tmp_path: Path, film: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film(tmp_path / "x.mp4")
    assert len(decode_clip(RawSample("x.mp4", str(path)), 4, 1)) == 4
    monkeypatch.setattr(video, "MAX_DECODE_S", -1.0)
    with pytest.raises(BrokenSample, match=r"x\.mp4: takes more than -1 s to decode"):
        decode_clip(RawSample("x.mp4", str(path)), 4, 1)


def test_a_video_whose_frames_are_too_large_is_broken(
    tmp_path: Path, film: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "MAX_FRAME_PIXELS", 1000)
    path = film(tmp_path / "x.mp4")
    with pytest.raises(BrokenSample, match=r"x\.mp4: its frames have 32 x 32 pixels, more than"):
        decode_clip(RawSample("x.mp4", str(path)), 4, 1)
