"""Clips of videos: which frames there are, and how they are reached."""

from __future__ import annotations

import gc
import io
import os
import threading
import time
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition
from PIL import Image

from arlow_trainer.data.decode import BrokenSample, RawSample, open_sample, read_remote, read_sample
from arlow_trainer.data.display import Display
from arlow_trainer.data.order import Draw, hash64
from arlow_trainer.storage.callbacks import called_back
from arlow_trainer.storage.remote_files import RemoteFile

# A container may announce a packed or dropped B-frame that its decoder never returns.
_MAX_MISSING_FRAMES = 2
# Of this thread on the processor: that of a slow disk or a busy machine must not decide what is
# trained on. The longest clip of an ordinary film takes seconds.
MAX_DECODE_S = 60.0
MAX_FRAME_PIXELS = 10**8
_INDEX_BYTES = 64 * 2**20
# Whose decoders begin anew at a keyframe. Others (GIF, QuickTime RLE, screen recorders) draw on
# what was shown before, a palette included, and are decoded from the start.
_BEGINS_AT_KEYFRAMES = {
    *("h264", "hevc", "av1", "vp8", "vp9", "theora", "mjpeg", "prores", "dnxhd"),
    *("mpeg1video", "mpeg2video", "mpeg4", "h263", "flv1", "msmpeg4v2", "msmpeg4v3"),
    *("wmv1", "wmv2"),
}


def decode_clip(
    raw: RawSample, frames: int, stride: int, seed: int | None = None
) -> list[Image.Image]:
    """Decodes a clip of `frames` RGB frames, `stride` frames of the video apart.

    Of several video streams the longest is taken. Frames stand as the video's display matrix asks,
    and their pixels are square. The clip's start is drawn from `seed`; None takes the middle of the
    video. Raises BrokenSample unless every frame that the clip needs decodes, all to one size, or
    what `read_sample` does where its file cannot be read.
    """
    content = raw.content
    if isinstance(content, bytes):
        return _clip(raw.name, io.BytesIO(content), None, frames, stride, seed)
    if isinstance(content, RemoteFile):
        remote, where = content, (content.path, content.size)
        return read_remote(raw.name, lambda: _clip(raw.name, remote, where, frames, stride, seed))

    def read() -> list[Image.Image]:
        with open_sample(raw.name, Path(content)) as file:
            status = os.fstat(file.fileno())
            about = (content, status.st_size, status.st_mtime_ns)
            return _clip(raw.name, file, about, frames, stride, seed)

    return read_sample(raw.name, read)


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


def _clip(
    name: str, file: Any, about: Hashable, frames: int, stride: int, seed: int | None
) -> list[Image.Image]:
    """As `decode_clip`; `about` is what the file's index is kept by, None for not at all.

    Raises what reading the file raised, and BrokenSample for whatever else goes wrong.
    """
    budget = _Budget(name)
    watched = _Watched(file, budget)
    # A store may not answer for long; a file that is here takes seconds at most.
    remote = isinstance(file, RemoteFile)
    try:
        with nullcontext() if remote else called_back():
            clip = _decode(name, watched, budget, about, frames, stride, seed)
    except (BrokenSample, MemoryError):
        if watched.failure is None:
            raise
    except Exception as error:  # what damaged bytes raise depends on where they are damaged
        if watched.failure is None:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise BrokenSample(name, reason) from error
    if watched.failure is not None:
        raise watched.failure
    return clip


class _Watched:
    """A file for FFmpeg, which reports a disk's errors and damaged bytes alike: keeps the former.

    It has no `fileno`, `name` or `write`: FFmpeg is to read through it alone. It ends when the
    budget does: in a hole of a file, FFmpeg looks on for a next packet without returning.
    """

    def __init__(self, file: Any, budget: _Budget) -> None:
        self._file, self._budget = file, budget
        self.failure: BaseException | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            self._budget.check()
            return bytes(self._file.read(size))
        except BaseException as error:
            self.failure = error
            raise

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())


def _decode(
    name: str,
    file: _Watched,
    budget: _Budget,
    about: Hashable,
    frames: int,
    stride: int,
    seed: int | None,
) -> list[Image.Image]:
    video = _INDEXES.get(about)
    with av.open(file, "r") as container:
        if video is None:
            video = _scan(container, name, budget)
            _INDEXES.put(about, video)
        stream = _stream_of(container, video)
        context = stream.codec_context
        if context.width * context.height > MAX_FRAME_PIXELS:
            raise BrokenSample(
                name,
                f"its frames have {context.width} x {context.height} pixels, more than "
                f"{MAX_FRAME_PIXELS:,}",
            )
        wanted = clip_frames(len(video.times), frames, stride, seed)
        ascending = sorted(set(wanted))
        try:
            if not video.has_clock or context.name not in _BEGINS_AT_KEYFRAMES:
                raise _Inexact
            decoded = dict(_by_seeking(container, video, ascending, budget))
        except _Inexact:
            decoded = {}
    if not decoded:
        file.seek(0)
        with av.open(file, "r") as container:
            decoded = dict(_from_start(container, video, ascending, budget))
    # The frame that was asked for the display matrix, and the threads that it holds.
    gc.collect(1)
    if not decoded:
        raise BrokenSample(name, "no frame decodes")
    last = max(decoded)
    if last < wanted[-1] - _MAX_MISSING_FRAMES:
        raise BrokenSample(name, f"ends at frame {last + 1} of {len(video.times)}")
    clip = [decoded.get(index, decoded[last]) for index in wanted]
    if len({frame.size for frame in clip}) > 1:
        raise BrokenSample(name, "its frames change size")
    return clip


class _Budget:
    """The time that one file may take to decode."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._end = time.thread_time() + MAX_DECODE_S

    def check(self) -> None:
        """Raises BrokenSample when it is used up."""
        if time.thread_time() > self._end:
            raise BrokenSample(self._name, f"takes more than {MAX_DECODE_S:.0f} s to decode")


# Which frames there are


@dataclass(frozen=True)
class _FrameIndex:
    """When the frames of a video are due, by its packets; times in the stream's time base."""

    stream: int
    """Its number among the container's streams."""
    times: array[int]
    """Presentation time of every frame, ascending; without a clock, the number of the frame."""
    keys: list[tuple[int, int]]
    """(Presentation time, decoding time) of every keyframe, ascending."""
    has_clock: bool
    """Whether packets are timed by one clock that never restarts: else frames are counted."""
    exact: bool
    """Whether every packet says when its own frame is due."""

    @property
    def nbytes(self) -> int:
        return 8 * len(self.times) + 100 * len(self.keys)


class _IndexCache:
    """The indexes of the files used last: to scan all packets of a long film takes seconds."""

    def __init__(self, most_bytes: int) -> None:
        self._most, self._held = most_bytes, 0
        self._indexes: OrderedDict[Hashable, _FrameIndex] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, about: Hashable) -> _FrameIndex | None:
        with self._lock:
            if about in self._indexes:
                self._indexes.move_to_end(about)
            return self._indexes.get(about)

    def put(self, about: Hashable, index: _FrameIndex) -> None:
        if about is None:
            return
        with self._lock:
            replaced = self._indexes.pop(about, None)
            self._held += index.nbytes - (replaced.nbytes if replaced else 0)
            self._indexes[about] = index
            while self._held > self._most and len(self._indexes) > 1:
                self._held -= self._indexes.popitem(last=False)[1].nbytes


_INDEXES = _IndexCache(_INDEX_BYTES)


@dataclass
class _Packets:
    """What a scan has seen of a stream."""

    times: list[int]
    keys: list[tuple[int, int]]
    count: int = 0
    last: int | None = None
    has_clock: bool = True
    exact: bool = True


def _scan(container: av.container.InputContainer, name: str, budget: _Budget) -> _FrameIndex:
    """Reads all packets. Raises BrokenSample where there is no video or no frame in it."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise BrokenSample(name, "has no video stream")
    seen = {stream.index: _Packets([], []) for stream in streams}
    for packet in container.demux(*streams):
        budget.check()
        if packet.is_discard or not packet.size:
            continue
        packets = seen[packet.stream.index]
        packets.count += 1
        due = packet.dts if packet.pts is None else packet.pts
        order = packet.dts if packet.dts is not None else packet.pts
        if due is None or order is None or (packets.last is not None and order < packets.last):
            packets.has_clock = False
        packets.last = order
        packets.exact &= packet.pts is not None
        if due is not None:
            packets.times.append(due)
            if packet.is_keyframe:
                packets.keys.append((due, due if packet.dts is None else packet.dts))

    def length(stream: av.VideoStream) -> tuple[float, int]:
        packets = seen[stream.index]
        if not packets.has_clock or not packets.times:
            return 0.0, packets.count
        extent = max(packets.times) - min(packets.times)
        return float(extent * (stream.time_base or 0)), packets.count

    chosen = max(streams, key=length) if len(streams) > 1 else streams[0]
    packets = seen[chosen.index]
    if not packets.count:
        raise BrokenSample(name, "has no frames")
    times = sorted(packets.times) if packets.has_clock else range(packets.count)
    return _FrameIndex(
        chosen.index, array("q", times), sorted(packets.keys), packets.has_clock, packets.exact
    )


# How frames are reached


def _stream_of(container: av.container.InputContainer, video: _FrameIndex) -> av.VideoStream:
    return next(each for each in container.streams.video if each.index == video.stream)


class _Inexact(Exception):
    """A seek may not lead to the frames that a decode from the start returns."""


def _by_seeking(
    container: av.container.InputContainer,
    video: _FrameIndex,
    wanted: Sequence[int],
    budget: _Budget,
) -> Iterator[tuple[int, Image.Image]]:
    """Yields (index, frame) of the wanted frames, seeking only where a keyframe lies between.

    Decoding on is cheaper than a seek to the same keyframe; a seek is cheaper than decoding a whole
    group of frames (GOP) that none is wanted from. Raises _Inexact where a frame is missing or
    damaged, which a decode from the start may return: after a keyframe that only begins to refresh
    the picture.
    """
    stream = _stream_of(container, video)
    stream.thread_type = "NONE"
    display = Display(stream)
    frames: Iterator[av.VideoFrame] | None = None
    reached = video.times[0]
    for index in wanted:
        target = video.times[index]
        key = bisect_right(video.keys, target, key=lambda times: times[0]) - 1
        if frames is None or (key >= 0 and video.keys[key][0] > reached):
            frames = _seek(container, stream, video, key)
        for frame in frames:
            budget.check()
            due = _time(frame)
            if due is None or due < target:
                continue
            if frame.is_corrupt or (video.exact and due != target):
                raise _Inexact
            reached = due
            yield index, display.show(frame)
            break
        else:
            raise _Inexact


def _from_start(
    container: av.container.InputContainer,
    video: _FrameIndex,
    wanted: Sequence[int],
    budget: _Budget,
) -> Iterator[tuple[int, Image.Image]]:
    """Yields (index, frame) of the wanted frames, decoding all before them."""
    stream = _stream_of(container, video)
    stream.thread_type = "NONE"
    display = Display(stream)
    remaining = iter(wanted)
    index = next(remaining)
    for number, frame in enumerate(container.decode(stream)):
        budget.check()
        due = _time(frame) if video.has_clock else number
        if due is None or due < video.times[index]:
            continue
        if frame.is_corrupt:
            raise ValueError(f"frame {index} is damaged")
        shown = display.show(frame)
        while due >= video.times[index]:
            yield index, shown
            following = next(remaining, None)
            if following is None:
                return
            index = following


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
        due = _time(first) if first is not None else None
        if first is not None and due is not None and due <= presented:
            return chain([first], frames)
    container.seek(start, stream=stream)
    return container.decode(stream)


def _time(frame: av.VideoFrame) -> int | None:
    return frame.dts if frame.pts is None else frame.pts
