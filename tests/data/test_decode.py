"""Decoding of images and clips: the same from a path and from bytes, and what is broken."""

from __future__ import annotations

import io
import random
import shutil
import struct
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from arlow_trainer.data import BrokenSample, RawSample, clip_frames, decode_clip, decode_image


def raw(path: Path) -> RawSample:
    return RawSample(path.name, str(path))


def all_frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def remuxed(video: Path, path: Path, kept: range | None = None, **options: str) -> Path:
    """The video's packets, all or those at some positions, in another container."""
    with av.open(str(video)) as source, av.open(str(path), "w", options=options) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for position, packet in enumerate(source.demux(video=0)):
            if packet.dts is not None and (kept is None or position in kept):
                packet.stream = stream
                target.mux(packet)
    return path


def encoded(path: Path, codec: str, frames: int, keyframe_every: int, b_frames: int) -> Path:
    """A video whose n-th frame is recognisable."""
    options = {"g": str(keyframe_every), "bf": str(b_frames), "sc_threshold": "0"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(25), options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(frames):
            image = np.zeros((64, 96, 3), np.uint8)
            image[:, : 1 + number * 95 // frames] = (200, 60, number * 255 // frames)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


# Pictures


def test_images_from_a_path_and_from_bytes_are_one(photographs: list[Path]) -> None:
    for path in photographs:
        image = decode_image(raw(path))
        assert image.mode == "RGB"
        again = decode_image(RawSample("bytes", path.read_bytes()))
        assert np.array_equal(np.asarray(image), np.asarray(again))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1"])
def test_every_mode_becomes_rgb(photographs: list[Path], mode: str) -> None:
    stored = io.BytesIO()
    with Image.open(photographs[0]) as image:
        image.convert("RGB").convert(mode).save(stored, "TIFF")
    assert decode_image(RawSample("tiff", stored.getvalue())).mode == "RGB"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_stand_upright(photographs: list[Path], orientation: int) -> None:
    upright = decode_image(raw(photographs[3]))
    stored, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    upright.transpose(Image.Transpose.ROTATE_90).save(stored, "PNG", exif=exif)
    shown = decode_image(RawSample("turned", stored.getvalue()))
    assert (shown.width > shown.height) == (orientation >= 5)
    if orientation == 6:  # the camera lay on its side: to be turned by 270 degrees
        assert np.array_equal(np.asarray(shown), np.asarray(upright))


def test_a_torn_jpeg_is_broken_and_named(photographs: list[Path]) -> None:
    whole = photographs[3].read_bytes()
    with pytest.raises(BrokenSample, match=r"rocket: .*truncated"):
        decode_image(RawSample("rocket", whole[: len(whole) // 2]))


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0" + bytes(50)])
def test_what_is_no_image_is_broken(content: bytes) -> None:
    with pytest.raises(BrokenSample, match="x: "):
        decode_image(RawSample("x", content))


def test_a_file_that_is_gone_is_broken(tmp_path: Path) -> None:
    for decode in (decode_image, lambda sample: decode_clip(sample, 4, 1)):
        with pytest.raises(BrokenSample, match="the file is gone"):
            decode(RawSample("x", str(tmp_path / "gone")))


@pytest.mark.parametrize("number", [0, 1, 3])
def test_flipped_bytes_never_raise_anything_else(photographs: list[Path], number: int) -> None:
    whole, generator = photographs[number].read_bytes(), random.Random(0)
    for _ in range(15):
        damaged = bytearray(whole)
        for _ in range(20):
            damaged[generator.randrange(2000)] = generator.randrange(256)
        try:
            decode_image(RawSample("damaged", bytes(damaged)))
        except BrokenSample as broken:
            assert broken.reason


# Clips


@given(st.integers(1, 2000), st.integers(1, 64), st.integers(1, 16), st.integers(0, 2**64 - 1))
def test_clips_lie_in_the_video(total: int, frames: int, stride: int, seed: int) -> None:
    indexes = clip_frames(total, frames, stride, seed)
    assert len(indexes) == frames
    assert 0 <= indexes[0] <= indexes[-1] < total
    gaps = [b - a for a, b in pairwise(indexes)]
    if total > (frames - 1) * stride:
        assert set(gaps) <= {stride}
    elif total >= frames:
        assert len(set(gaps)) <= 1
        assert all(1 <= gap < stride for gap in gaps)
    else:
        assert indexes == [min(i, total - 1) for i in range(frames)]


def test_clips_start_everywhere_and_the_middle_is_the_middle() -> None:
    starts = {clip_frames(20, 4, 4, seed)[0] for seed in range(200)}
    assert starts == set(range(8))
    assert clip_frames(20, 4, 4, None) == [3, 7, 11, 15]
    assert clip_frames(1, 1, 4, None) == [0]


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts", "mov", "flv"])
def test_clips_are_exact_in_every_container(
    videos: list[Path], tmp_path: Path, container: str
) -> None:
    video = remuxed(videos[0], tmp_path / f"video.{container}")
    frames = all_frames(video)
    for seed in range(2):
        clip = decode_clip(raw(video), 8, 4, seed)
        for image, index in zip(clip, clip_frames(len(frames), 8, 4, seed), strict=True):
            assert np.array_equal(np.asarray(image), frames[index])


@pytest.mark.parametrize("extension", ["avi", "mp4"])
@pytest.mark.parametrize(("keyframe_every", "b_frames"), [(1, 0), (12, 0), (12, 2), (250, 2)])
def test_clips_are_exact_whatever_the_keyframes(
    tmp_path: Path, extension: str, keyframe_every: int, b_frames: int
) -> None:
    video = encoded(tmp_path / f"video.{extension}", "mpeg4", 120, keyframe_every, b_frames)
    frames = all_frames(video)
    for seed in range(6):
        clip = decode_clip(raw(video), 4, 16, seed)
        for image, index in zip(clip, clip_frames(len(frames), 4, 16, seed), strict=True):
            assert np.array_equal(np.asarray(image), frames[index])


def test_a_short_video_repeats_its_last_frame(tmp_path: Path) -> None:
    video = encoded(tmp_path / "short.mp4", "libx264", 5, 12, 0)
    frames = all_frames(video)
    clip = decode_clip(raw(video), 8, 4, seed=1)
    assert len(clip) == 8
    expected = [*frames, *[frames[-1]] * 3]
    assert all(np.array_equal(np.asarray(a), b) for a, b in zip(clip, expected, strict=True))


def test_bytes_and_path_give_one_clip(videos: list[Path]) -> None:
    from_path = decode_clip(raw(videos[1]), 4, 4, seed=5)
    from_bytes = decode_clip(RawSample("bytes", videos[1].read_bytes()), 4, 4, seed=5)
    assert all(map(np.array_equal, map(np.asarray, from_path), map(np.asarray, from_bytes)))


def test_a_torn_mp4_is_broken(videos: list[Path], tmp_path: Path) -> None:
    torn = tmp_path / "torn.mp4"
    whole = remuxed(videos[0], tmp_path / "whole.mp4").read_bytes()  # its index lies at the end
    torn.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BrokenSample, match=r"torn.mp4: Invalid data"):
        decode_clip(raw(torn), 4, 4)


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("kept", [range(1, 2), range(1, 3), range(1, 30)])
def test_a_video_without_its_keyframe_is_broken(
    videos: list[Path], tmp_path: Path, container: str, kept: range
) -> None:
    video = remuxed(videos[0], tmp_path / f"video.{container}", kept)
    for frames, seed in ((1, None), (1, 5), (4, 5)):
        with pytest.raises(BrokenSample, match=rf"video\.{container}: \w"):
            decode_clip(raw(video), frames, 1, seed)


def test_what_a_torn_video_still_holds_is_used(videos: list[Path], tmp_path: Path) -> None:
    whole = remuxed(videos[0], tmp_path / "whole.mp4", movflags="faststart")
    frames = all_frames(whole)
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    used = broken = 0
    for seed in range(12):
        try:
            clip = decode_clip(raw(torn), 4, 4, seed)
        except BrokenSample:
            broken += 1
            continue
        used += 1
        for image in clip:
            assert any(np.array_equal(np.asarray(image), frame) for frame in frames)
    assert used > broken


def test_a_video_whose_frames_change_size_is_broken(tmp_path: Path) -> None:
    joined = b""
    for width in (64, 32):
        with av.open(str(tmp_path / "part.ts"), "w") as container:
            stream = container.add_stream("mpeg2video", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, 32, "yuv420p"
            for _ in range(20):
                image = np.zeros((32, width, 3), np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
        joined += (tmp_path / "part.ts").read_bytes()
    with pytest.raises(BrokenSample, match="its frames change size"):
        decode_clip(RawSample("x", joined), 8, 4)


def test_what_is_no_video_is_broken(photographs: list[Path], tmp_path: Path) -> None:
    for content in (b"", b"not a video", bytes(4000)):
        with pytest.raises(BrokenSample, match="x: "):
            decode_clip(RawSample("x", content), 4, 4)
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(BrokenSample, match="has no video stream"):
        decode_clip(raw(sound), 4, 4)


def test_files_are_closed(videos: list[Path], tmp_path: Path) -> None:
    video = Path(shutil.copy(videos[1], tmp_path))
    for _ in range(3):
        decode_clip(raw(video), 4, 4)
    held = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert not any(str(link.readlink()) == str(video) for link in held if link.is_symlink())


def test_videos_stand_upright(videos: list[Path], tmp_path: Path) -> None:
    """A phone held upright records on its side and says so in the track's matrix."""
    content = bytearray(videos[1].read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40  # version 0: ISO/IEC 14496-12, 8.3.2
    quarter_turn_clockwise = (0, 1 << 16, 0, -(1 << 16), 0, 0, 144 << 16, 0, 1 << 30)
    content[matrix : matrix + 36] = struct.pack(">9i", *quarter_turn_clockwise)
    (lying,) = decode_clip(raw(videos[1]), 1, 1)
    (upright,) = decode_clip(RawSample("phone", bytes(content)), 1, 1)
    assert upright.size == (144, 193)  # its pixels are 128 to 117
    assert np.array_equal(np.asarray(upright), np.rot90(np.asarray(lying), k=-1))
