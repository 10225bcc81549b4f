"""Frames after a seek are those of a decode from the start, and shown as a player shows them."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from arlow_trainer.config.errors import StoreError
from arlow_trainer.data import BrokenSample, RawSample, clip_frames, decode_clip, video
from arlow_trainer.data.display import square_pixels
from arlow_trainer.storage import remote_files
from arlow_trainer.storage.callbacks import interrupt
from arlow_trainer.storage.remote_files import RemoteFile
from arlow_trainer.storage.timeouts import StoreTimeout

SIDE = 64


def raw(path: Path) -> RawSample:
    return RawSample(path.name, str(path))


def picture(number: int) -> np.ndarray:
    """A square on a ground, which moves, so that the n-th frame is recognisable."""
    image = np.full((SIDE, SIDE, 3), (40, 60, 90), np.uint8)
    image[16:40, number % 40 : number % 40 + 20] = (220, 200 - number, number)
    return image


def encoded(
    path: Path, codec: str, pixels: str, frames: int = 60, first: int = 0, **options: str
) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(25), options=options)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, pixels
        for number in range(first, first + frames):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def from_start(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def assert_exact(path: Path, frames: list[np.ndarray], seeds: int = 4) -> None:
    for seed in range(seeds):
        clip = decode_clip(raw(path), 4, 10, seed)
        for image, index in zip(clip, clip_frames(len(frames), 4, 10, seed), strict=True):
            assert np.array_equal(np.asarray(image), frames[index]), index


CODECS = {
    "x264.mp4": ("libx264", "yuv420p", {"g": "12", "bf": "2"}),
    "open-groups.mkv": ("libx264", "yuv420p", {"x264-params": "open-gop=1:keyint=10:bframes=3"}),
    "refresh.mp4": ("libx264", "yuv420p", {"x264-params": "intra-refresh=1:keyint=10"}),
    "refresh.ts": ("libx264", "yuv420p", {"x264-params": "intra-refresh=1:keyint=10"}),
    "ten-bits.mp4": ("libx264", "yuv420p10le", {"g": "12", "bf": "2"}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"g": "12"}),
    "mpeg2.mpg": ("mpeg2video", "yuv420p", {"g": "12", "bf": "2"}),
    "ffv1.mkv": ("ffv1", "yuv420p", {"g": "12", "context": "1"}),
    "quicktime-rle.mov": ("qtrle", "rgb24", {"g": "12"}),
    "palette.gif": ("gif", "rgb8", {}),
    "palette.avi": ("msrle", "pal8", {}),
    "screen.avi": ("zmbv", "bgr0", {"g": "12"}),
    "flash.flv": ("flashsv", "bgr24", {"g": "12"}),
    "motion.avi": ("mjpeg", "yuvj420p", {}),
}


@pytest.mark.parametrize("name", CODECS)
def test_frames_after_a_seek_are_those_of_a_decode_from_the_start(
    tmp_path: Path, name: str
) -> None:
    codec, pixels, options = CODECS[name]
    try:
        path = encoded(tmp_path / name, codec, pixels, **options)
    except (av.FFmpegError, av.codec.codec.UnknownCodecError, ValueError) as error:
        pytest.skip(f"this PyAV does not encode {codec} of {pixels}: {error}")
    frames = from_start(path)
    assert len({frame.tobytes() for frame in frames}) > 30
    assert_exact(path, frames)


def test_streams_of_ts_one_after_another_are_one_video(tmp_path: Path) -> None:
    """Each part has a clock of its own, from 0 on: no time says which of the frames is meant."""
    parts = [
        encoded(tmp_path / f"{n}.ts", "mpeg2video", "yuv420p", 20, first, bf="0")
        for n, first in enumerate((0, 20, 40))
    ]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames = from_start(path)
    assert len(frames) > 50
    assert_exact(path, frames)


def test_the_longest_of_several_streams_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg4", rate=25) for _ in range(2)]
        sides = (32, SIDE)
        for stream, side in zip(streams, sides, strict=True):
            stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        for stream, side, count in zip(streams, sides, (5, 40), strict=True):
            for number in range(count):
                image = Image.fromarray(picture(number)).resize((side, side))
                container.mux(stream.encode(av.VideoFrame.from_image(image)))
            container.mux(stream.encode())
    (frame,) = decode_clip(raw(path), 1, 1)
    assert frame.size == (SIDE, SIDE)


ONE = 1 << 16
MATRICES = {
    "mirrored": ((-ONE, 0, 0, ONE), np.fliplr),
    "upside down": ((ONE, 0, 0, -ONE), np.flipud),
    "half a turn": ((-ONE, 0, 0, -ONE), lambda image: np.rot90(image, 2)),
    "a turn to the right": ((0, ONE, -ONE, 0), lambda image: np.rot90(image, -1)),
    "a turn to the left": ((0, -ONE, ONE, 0), np.rot90),
    "transposed": ((0, ONE, ONE, 0), lambda image: image.transpose(1, 0, 2)),
    "transversed": ((0, -ONE, -ONE, 0), lambda image: np.rot90(image, 2).transpose(1, 0, 2)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_frames_are_turned_and_mirrored_by_the_display_matrix(tmp_path: Path, name: str) -> None:
    (a, b, c, d), turn = MATRICES[name]
    path = encoded(tmp_path / "video.mp4", "mpeg4", "yuv420p", 3)
    (lying,) = decode_clip(raw(path), 1, 1)
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # version 0: ISO/IEC 14496-12, 8.3.2
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (shown,) = decode_clip(RawSample("turned", bytes(content)), 1, 1)
    assert np.array_equal(np.asarray(shown), turn(np.asarray(lying)))


@pytest.mark.parametrize(
    ("aspect", "size"),
    [(Fraction(4, 3), (85, 64)), (Fraction(8, 9), (64, 72)), (Fraction(1), (64, 64))],
)
def test_pixels_become_square(tmp_path: Path, aspect: Fraction, size: tuple[int, int]) -> None:
    path = tmp_path / "dv.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (frame,) = decode_clip(raw(path), 1, 1)
    assert frame.size == size


def test_an_aspect_that_no_video_has_is_none() -> None:
    assert square_pixels(64, 48, None) == (64, 48)
    assert square_pixels(64, 48, Fraction(1000)) == (64, 48)
    assert square_pixels(64, 48, Fraction(2)) == (128, 48)


def test_the_packets_of_a_file_are_scanned_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans: list[str] = []
    scan = video._scan

    def counted(container: object, name: str, budget: object) -> object:
        scans.append(name)
        return scan(container, name, budget)

    monkeypatch.setattr(video, "_scan", counted)
    path = encoded(tmp_path / "long.mp4", "mpeg4", "yuv420p")
    frames = from_start(path)
    assert_exact(path, frames)
    assert scans == ["long.mp4"]
    encoded(path, "mpeg4", "yuv420p", 50, first=7)
    assert_exact(path, from_start(path))
    assert len(scans) == 2


@pytest.mark.parametrize(
    ("name", "codec"), [("x.ts", "mpeg2video"), ("x.mkv", "mpeg4"), ("x.avi", "mpeg4")]
)
def test_the_search_for_packets_in_a_hole_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, codec: str
) -> None:
    """As of a download that has stopped: the file has its size, and nothing in its rest."""
    path = encoded(tmp_path / name, codec, "yuv420p", 20)
    os.truncate(path, 2**40)
    monkeypatch.setattr(video, "MAX_DECODE_S", 0.5)
    with pytest.raises(BrokenSample, match="takes more than 0 s to decode"):
        decode_clip(raw(path), 2, 1)


def test_indexes_take_a_bounded_memory(tmp_path: Path, film: Callable[[Path], Path]) -> None:
    cache = video._IndexCache(1000)
    for number in range(20):
        path = film(tmp_path / f"{number}.mp4")
        with av.open(str(path)) as container:
            cache.put(number, video._scan(container, "x", video._Budget("x")))
    assert cache.get(0) is None
    assert cache.get(19) is not None


class Served:
    """A file system of one file, which counts the bytes that are read."""

    protocol, async_impl = "served", False

    def __init__(self, content: bytes) -> None:
        self.content, self.sent = content, 0

    def cat_file(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        part = self.content[start:end]
        self.sent += len(part)
        return part

    def info(self, path: str) -> dict[str, int]:
        return {"size": len(self.content)}


class Failing(Served):
    """The same, all of whose requests fail."""

    def __init__(self, content: bytes, failure: Exception) -> None:
        super().__init__(content)
        self.failure = failure

    def cat_file(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        raise self.failure


def test_a_large_video_in_a_store_is_read_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_files, "READ_PART", 512)
    path = encoded(tmp_path / "long.mp4", "mpeg4", "yuv420p", 200, g="10")
    content = path.read_bytes()
    assert len(content) > 10 * 512
    served = Served(content)
    remote = remote_files.open_file(served, "long.mp4")
    assert isinstance(remote, RemoteFile)
    clips = [decode_clip(sample, 2, 1, 3) for sample in (RawSample("x", remote), raw(path))]
    assert all(map(np.array_equal, *(map(np.asarray, clip) for clip in clips)))
    remote.seek(0)
    assert remote.readall() == content == remote_files.read_file(served, "long.mp4")


def test_a_store_that_fails_in_the_middle_of_a_video_is_told_from_a_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_files, "READ_PART", 512)
    content = encoded(tmp_path / "long.mp4", "mpeg4", "yuv420p", 200, g="10").read_bytes()
    for failure, expected in (
        (FileNotFoundError(), BrokenSample),
        (StoreTimeout("no answer"), StoreError),
    ):
        remote = RemoteFile(Failing(content, failure), "long.mp4", len(content), content[:512])
        with pytest.raises(expected):
            decode_clip(RawSample("x", remote), 2, 1, 3)


def test_a_signal_in_the_middle_of_a_video_is_raised_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """FFmpeg's calls back would print and forget it, and the video would seem to be damaged."""

    class Asked(BaseException):
        pass

    path = encoded(tmp_path / "video.mp4", "mpeg4", "yuv420p", 20)
    read = video._Watched.read
    reads = []

    def asked(file: video._Watched, size: int = -1) -> bytes:
        interrupt(Asked())
        reads.append(size)
        return read(file, size)

    monkeypatch.setattr(video._Watched, "read", asked)
    with pytest.raises(Asked):
        decode_clip(RawSample("video.mp4", str(path)), 2, 1)
    assert len(reads) > 1
    assert capfd.readouterr().err == ""
