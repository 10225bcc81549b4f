"""How large an image becomes, and which crops of it are used as well."""

from __future__ import annotations

import math

MAX_ASPECT_RATIO = 200
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


def fitted_size(
    height: int, width: int, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """The size (height, width) nearest to an image's own that the tower can take.

    The rule of Qwen2-VL's `smart_resize` (Wang et al., 2024, arXiv:2409.12191), on which the public
    processor's is modelled.

    Args:
        height, width: of the image, in pixels.
        factor: both sides become multiples of it: the patch size times the merge size.
        min_pixels, max_pixels: bounds of the area; within them each side is rounded, outside of
            them the image is scaled, its aspect ratio kept.

    Raises:
        ValueError: one side is more than 200 times the other.
    """
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise ValueError(
            f"an image of {height} x {width} pixels is too long: one side may be at most "
            f"{MAX_ASPECT_RATIO} times the other."
        )
    rows, columns = round(height / factor), round(width / factor)
    area = rows * columns * factor**2
    # In double precision and in this order, as the public processor rounds: where a bound is met
    # exactly, the grids of both are to be the same.
    if area > max_pixels:
        scale = math.sqrt((height * width) / max_pixels)
        rows = max(1, math.floor(height / scale / factor))
        columns = max(1, math.floor(width / scale / factor))
    elif area < min_pixels:
        scale = math.sqrt(min_pixels / (height * width))
        rows = math.ceil(height * scale / factor)
        columns = math.ceil(width * scale / factor)
    return rows * factor, columns * factor


def pan_and_scan_boxes(
    height: int, width: int, min_crop_size: int, max_num_crops: int, min_ratio: float
) -> list[Box]:
    """Crops along the longer side of a long image, in order.

    Gemma 3's pan and scan (Gemma Team, 2025, arXiv:2503.19786), which the public processor takes
    over.

    Args:
        height, width: of the image, in pixels.
        min_crop_size: no crop has a side shorter than this.
        max_num_crops: the maximum number of crops.
        min_ratio: the aspect ratio from which on an image is cropped at all.

    Returns:
        The crops in order, or none where the image is not long or not large enough.
    """
    long, short = max(height, width), min(height, width)
    if long / short < min_ratio or max_num_crops < 1:
        return []
    wanted = min(math.floor(long / short + 0.5), long // max(1, min_crop_size))
    count = min(max(2, wanted), max_num_crops)
    length = math.ceil(long / count)
    if min(length, short) < min_crop_size:
        return []
    starts = [min(long - length, index * length) for index in range(count)]
    if width >= height:
        return [(start, 0, start + length, height) for start in starts]
    return [(0, start, width, start + length) for start in starts]
