"""Pictures of any mode as RGB: the one rule of the trainer and of the exported processors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

BACKGROUND = 255
# What Pillow holds more than 8 bits of a channel in.
DEEP_MODES = {"I", "F", "I;16", "I;16L", "I;16B", "I;16N"}


def to_rgb(image: Image.Image) -> Image.Image:
    """Returns a picture as RGB, 8 bits a channel, as a viewer shows it.

    It stands upright by its EXIF orientation, damaged EXIF being none. Values of more than 8 bits
    are scaled (`to_eight_bits`). What is transparent is laid over white.

    Raises:
        ValueError: its values are no numbers.
    """
    try:
        image = ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception:  # what damaged EXIF raises depends on where it is damaged
        image.load()
    transparent = image.info.get("transparency")
    if image.mode in DEEP_MODES:
        values = np.asarray(image)
        image = Image.fromarray(to_eight_bits(values))
        if isinstance(transparent, int):
            # Its value in all its bits, which several values have in 8.
            image.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype("u1")))
    elif image.mode == "RGB" and isinstance(transparent, tuple) and max(transparent) > 255:
        # Pillow keeps 8 of 16 bits of the pixels, but all of the value.
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        # RGBa, with its colours multiplied by their opacity, too.
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (BACKGROUND,) * 4)
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def to_eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Returns values of more than 8 bits, or of floating point, scaled to 0 to 255.

    The range is that of the least number of bits, from 8 on, that holds the largest value, so that
    12 bits stored in 16 are not black; for floating point up to 1, it is 1. Where there are
    negative values, it is the picture's own.

    Raises:
        ValueError: values that are no finite numbers.
    """
    numbers = values.astype(np.float64)
    low, high = float(numbers.min()), float(numbers.max())
    if not np.isfinite(low) or not np.isfinite(high):
        raise ValueError("the picture has values that are no finite numbers.")
    if low < 0:
        numbers, high = numbers - low, high - low
        top = high or 1.0
    elif high <= 1 and values.dtype.kind == "f":
        top = 1.0
    else:
        top = 2.0 ** max(8, int(high).bit_length()) - 1
    return np.minimum(numbers * (255 / top) + 0.5, 255).astype(np.uint8)
