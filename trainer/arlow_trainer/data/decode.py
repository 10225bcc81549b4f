"""A sample, from its file or bytes to uint8 pixels: reading, decoding, crop and flip."""

from __future__ import annotations

import io
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, TypeVar

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from arlow_trainer.config.errors import ArlowError
from arlow_trainer.config.shown_text import redact_urls
from arlow_trainer.data.errors import access_error
from arlow_trainer.data.fingerprint import Entry
from arlow_trainer.data.order import Draw, hash64, uniform
from arlow_trainer.storage.failures import Failure, classify
from arlow_trainer.storage.local_files import open_regular
from arlow_trainer.storage.remote_files import read_file
from arlow_trainer.storage.retries import with_retries

T = TypeVar("T")
Pixels = npt.NDArray[np.uint8]


class Source(Protocol):
    """A set of images or videos; picklable, so that decoding processes can open it too."""

    name: str
    """What messages call the set."""

    def __len__(self) -> int:
        """Samples of the set."""

    def read(self, position: int) -> RawSample:
        """Returns one undecoded sample.

        Raises BrokenSample when there is nothing to decode, StoreError when the set is out of reach
        for minutes, CredentialsError when access is refused, DataError otherwise.
        """

    def entries(self) -> list[Entry]:
        """Returns a bounded sample of the set's files as a listing describes them, without reading
        them; none where that fails."""


@dataclass(frozen=True)
class RawSample:
    """An undecoded sample."""

    name: str
    """What messages call it."""
    content: bytes | str
    """The file's bytes, or its path on this machine."""


class BrokenSample(ValueError):
    """A sample that is gone or cannot be decoded; the run continues with another."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        # Checkpoints, events and logs repeat it.
        self.reason = redact_urls(reason)

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


# Reading


def read_sample(name: str, read: Callable[[], T]) -> T:
    """Returns what `read` does, repeated for minutes while a disk or store hiccups.

    A hiccup must not become a skipped sample: that would change the training.

    Raises BrokenSample when the file is gone, StoreError when it is out of reach for
    minutes, CredentialsError when access is refused, DataError for any other error of a disk or
    store; and whatever else `read` raises, unchanged.
    """
    try:
        return with_retries(name, read)
    except NotADirectoryError:
        raise BrokenSample(name, "the file is gone") from None
    except (ArlowError, BrokenSample):
        raise
    except Exception as error:
        reason = classify(error, local=False)
        if reason is Failure.MISSING:
            raise BrokenSample(name, "the file is gone") from None
        if reason is Failure.OTHER and not isinstance(error, OSError):
            raise
        raise access_error(name, error) from error


def read_remote_sample(name: str, fs: Any, path: str) -> RawSample:
    """Reads a file behind an fsspec file system. Raises as `read_sample`, but no other errors."""
    try:
        return RawSample(name, read_sample(name, lambda: read_file(fs, path)))
    except (ArlowError, BrokenSample, MemoryError):
        raise
    except Exception as error:  # such as a ValueError for a URL that no library takes
        raise access_error(name, error) from error


# Decoding

# A container may announce a packed or dropped B-frame that its decoder never returns.
_MAX_MISSING_FRAMES = 2
_QUARTER_TURNS = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_270,
}


def decode_image(raw: RawSample) -> Image.Image:
    """Decodes an image to RGB, upright by its EXIF orientation.

    Raises BrokenSample, or what `read_sample` does where its file cannot be read.
    """
    content = raw.content
    if isinstance(content, str):
        path = Path(content)

        def read() -> bytes:
            with open_regular(path) as file:
                return file.read()

        content = read_sample(raw.name, read)
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return image if image.mode == "RGB" else image.convert("RGB")
    except UnidentifiedImageError:
        raise BrokenSample(raw.name, "not an image that Pillow can read") from None
    except MemoryError:
        raise
    except Exception as error:  # what damaged bytes raise depends on where they are damaged
        raise BrokenSample(raw.name, str(error) or type(error).__name__) from error


def decode_clip(
    raw: RawSample, frames: int, stride: int, seed: int | None = None
) -> list[Image.Image]:
    """Decodes a clip of `frames` RGB frames, `stride` frames of the video apart.

    The clip's start is drawn from `seed`; None takes the middle of the video. Raises BrokenSample
    unless every frame that the clip needs decodes, all to one size, or what `read_sample` does
    where its file cannot be read.
    """
    content = raw.content
    if isinstance(content, bytes):
        return _clip(raw.name, io.BytesIO(content), frames, stride, seed)

    def read() -> list[Image.Image]:
        # Read by Python: FFmpeg reports a disk's errors and damaged bytes alike, as EIO.
        with open_regular(Path(content)) as file:
            return _clip(raw.name, file, frames, stride, seed)

    return read_sample(raw.name, read)


def _clip(
    name: str, file: io.RawIOBase | io.BytesIO, frames: int, stride: int, seed: int | None
) -> list[Image.Image]:
    try:
        with av.open(file, "r") as container:
            if not container.streams.video:
                raise BrokenSample(name, "has no video stream")
            video = _scan(container)
            if not video.times:
                raise BrokenSample(name, "has no frames")
            wanted = clip_frames(len(video.times), frames, stride, seed)
            decoded = dict(_decode_frames(container, video, sorted(set(wanted))))
    except BrokenSample:
        raise
    except (av.FFmpegError, ValueError) as error:
        raise BrokenSample(name, getattr(error, "strerror", None) or str(error)) from error
    if not decoded:
        raise BrokenSample(name, "no frame decodes")
    last = max(decoded)
    if last < wanted[-1] - _MAX_MISSING_FRAMES:
        raise BrokenSample(name, f"ends at frame {last + 1} of {len(video.times)}")
    clip = [decoded.get(index, decoded[last]) for index in wanted]
    if len({frame.size for frame in clip}) > 1:
        raise BrokenSample(name, "its frames change size")
    return clip


def clip_frames(total: int, frames: int, stride: int, seed: int | None) -> list[int]:
    """Returns the ascending frame indexes of a clip in a video of `total` frames.

    A video too short for the stride gets the largest that fits; one with fewer frames than the clip
    repeats its last. The start is uniform in `seed`, or central for None.
    """
    if frames > 1:
        stride = max(1, min(stride, (total - 1) // (frames - 1)))
    room = max(1, total - (frames - 1) * stride)
    start = (room - 1) // 2 if seed is None else hash64(seed, Draw.CLIP) % room
    return [min(start + i * stride, total - 1) for i in range(frames)]


@dataclass(frozen=True)
class _FrameIndex:
    """When the frames of a video are due, by its packets; times in the stream's time base."""

    times: list[int]
    """Presentation time of every frame, ascending."""
    keys: list[tuple[int, int]]
    """(Presentation time, decoding time) of every keyframe, ascending."""


def _scan(container: av.container.InputContainer) -> _FrameIndex:
    times, keys = [], []
    for packet in container.demux(video=0):
        time = packet.dts if packet.pts is None else packet.pts
        if time is None or packet.is_discard or not packet.size:
            continue
        times.append(time)
        if packet.is_keyframe:
            keys.append((time, time if packet.dts is None else packet.dts))
    return _FrameIndex(sorted(times), sorted(keys))


def _decode_frames(
    container: av.container.InputContainer, video: _FrameIndex, wanted: Sequence[int]
) -> Iterator[tuple[int, Image.Image]]:
    """Yields (index, frame) of the wanted frames, seeking only where a keyframe lies between.

    Decoding on is cheaper than a seek to the same keyframe; a seek is cheaper than decoding a whole
    group of frames (GOP) that none is wanted from.
    """
    stream = container.streams.video[0]
    stream.thread_type = "NONE"
    frames: Iterator[av.VideoFrame] | None = None
    reached = video.times[0]
    for index in wanted:
        target = video.times[index]
        key = bisect_right(video.keys, target, key=lambda times: times[0]) - 1
        if frames is None or (key >= 0 and video.keys[key][0] > reached):
            frames = _seek(container, stream, video, key)
        for frame in frames:
            time = _time(frame)
            if time is None or time < target:
                continue
            if frame.is_corrupt:
                raise ValueError(f"frame {index} is damaged")
            reached = time
            yield index, _upright(frame)
            break
        else:
            return


def _seek(
    container: av.container.InputContainer, stream: av.VideoStream, video: _FrameIndex, key: int
) -> Iterator[av.VideoFrame]:
    """Returns the frames from a keyframe on, or from before it.

    Containers index by presentation time (MP4, Matroska) or by decoding time (AVI, MPEG-TS) and
    do not say which; asked for the wrong one, they seek beyond the keyframe.
    """
    presented, decoded = video.keys[max(key, 0)] if video.keys else (video.times[0], video.times[0])
    start = video.keys[0][1] if video.keys else video.times[0]
    for offset in (presented, decoded):
        container.seek(offset, stream=stream)
        frames = container.decode(stream)
        first = next(frames, None)
        time = _time(first) if first is not None else None
        if first is not None and time is not None and time <= presented:
            return chain([first], frames)
    container.seek(start, stream=stream)
    return container.decode(stream)


def _time(frame: av.VideoFrame) -> int | None:
    return frame.dts if frame.pts is None else frame.pts


def _upright(frame: av.VideoFrame) -> Image.Image:
    """Converts to RGB, turned as the video's display matrix asks."""
    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    turn = _QUARTER_TURNS.get(round(frame.rotation) % 360)
    return image.transpose(turn) if turn is not None else image


# Views

CropBox = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""

_RATIOS = (3 / 4, 4 / 3)
_MAX_DRAWS = 10


def crop_box(width: int, height: int, seed: int, min_scale: float) -> CropBox:
    """Returns the box of a random resized crop (Szegedy et al., 2015) of an image.

    Its area is uniform in [min_scale, 1] of the image's and its aspect ratio log-uniform in
    [3/4, 4/3]. Where ten draws do not fit, the largest central box with the nearest ratio.
    """
    for draw in range(_MAX_DRAWS):
        area = width * height * (min_scale + (1 - min_scale) * uniform(seed, Draw.AREA, draw))
        low, high = (math.log(ratio) for ratio in _RATIOS)
        ratio = math.exp(low + (high - low) * uniform(seed, Draw.RATIO, draw))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left = int(uniform(seed, Draw.LEFT, draw) * (width - w + 1))
            top = int(uniform(seed, Draw.TOP, draw) * (height - h + 1))
            return left, top, left + w, top + h
    ratio = min(max(width / height, _RATIOS[0]), _RATIOS[1])
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    return _central(width, height, max(1, w), max(1, h))


def random_view(
    frames: Sequence[Image.Image], size: int, seed: int, min_scale: float, flip: bool
) -> Pixels:
    """Returns a random resized crop, bicubic, mirrored half the time: uint8 [T, size, size, 3].

    All frames, which must be of one size, share the crop and the flip.
    """
    box = crop_box(*frames[0].size, seed, min_scale)
    return _resized(frames, box, size, mirrored=flip and uniform(seed, Draw.FLIP) < 0.5)


def center_view(frames: Sequence[Image.Image], size: int) -> Pixels:
    """Returns the largest central square, bicubic: uint8 [T, size, size, 3]."""
    width, height = frames[0].size
    side = min(width, height)
    return _resized(frames, _central(width, height, side, side), size)


def _resized(
    frames: Sequence[Image.Image], box: CropBox, size: int, mirrored: bool = False
) -> Pixels:
    pixels = np.empty((len(frames), size, size, 3), np.uint8)
    for view, frame in zip(pixels, frames, strict=True):
        resized = frame.resize((size, size), Image.Resampling.BICUBIC, box=box)
        if mirrored:
            resized = resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        view[:] = np.asarray(resized)
    return pixels


def _central(width: int, height: int, w: int, h: int) -> CropBox:
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
