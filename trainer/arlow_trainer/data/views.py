"""Views: the crop of a sample's frames that the tower sees."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from arlow_trainer.data.order import Draw, uniform

Pixels = npt.NDArray[np.uint8]

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
