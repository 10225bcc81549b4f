"""How the frames of a video are shown: as RGB with square pixels, turned and mirrored."""

from __future__ import annotations

import math
import struct
from typing import Any

import av
from PIL import Image

# Where x and y of a frame go, by a display matrix (a, b, c, d): x' = ax + cy, y' = bx + dy.
_TRANSPOSES = {
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}
_MAX_PIXEL_ASPECT = 8


class Display:
    """How the frames of one clip are shown."""

    def __init__(self, stream: av.VideoStream) -> None:
        self._aspect = stream.sample_aspect_ratio
        self._known = False
        self._turn: Image.Transpose | None = None

    def show(self, frame: av.VideoFrame) -> Image.Image:
        """Converts a frame, as the display matrix of the first one asks."""
        if not self._known:
            self._known = True
            # Once a clip: a frame that was asked for it is kept, with its threads, by a cycle.
            matrix: Any = frame.side_data.get("DISPLAYMATRIX")
            self._turn = (
                _TRANSPOSES.get(_linear_part(bytes(matrix))) if matrix is not None else None
            )
        image = Image.fromarray(frame.to_ndarray(format="rgb24"))
        size = square_pixels(*image.size, self._aspect)
        if size != image.size:
            image = image.resize(size, Image.Resampling.BICUBIC)
        return image.transpose(self._turn) if self._turn is not None else image


def square_pixels(width: int, height: int, aspect: Any) -> tuple[int, int]:
    """Returns the size (width, height) at which the pixels of a frame are square.

    The shorter side of a pixel is stretched, so that nothing is lost. An `aspect` (width to height
    of a pixel) that is not known, or that no video has, is taken for 1.
    """
    ratio = float(aspect or 1)
    if ratio <= 0 or not 1 / _MAX_PIXEL_ASPECT <= ratio <= _MAX_PIXEL_ASPECT:
        return width, height
    if ratio >= 1:
        return round(width * ratio), height
    return width, round(height / ratio)


def _linear_part(matrix: bytes) -> tuple[int, int, int, int]:
    """Returns a, b, c, d of a display matrix (3 x 3 numbers of 32 bits), as -1, 0 or 1."""
    a, b, _, c, d = struct.unpack_from("=5i", matrix)
    scale = math.sqrt(abs(a * d - b * c)) or 1.0
    return round(a / scale), round(b / scale), round(c / scale), round(d / scale)
