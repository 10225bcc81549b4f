"""Images and videos for the processors, and their patches by plain numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from arlow_trainer.model import ArlowImageProcessor, ArlowProcessor, ArlowVideoProcessor

SMALL_FRAMES = {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}
Pixels = NDArray[np.uint8]


def image(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def video(frames: int, height: int = 56, width: int = 84) -> Pixels:
    images = [image(height, width, seed) for seed in range(frames)]
    return np.array(images, dtype=np.uint8).reshape(frames, height, width, 3)


def plain_patches(frames: list[Pixels], height: int, width: int) -> NDArray[np.float32]:
    """Resize, scale, normalise and cut two frames a patch, one patch after another."""
    resized = [
        np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))
        for frame in frames
    ]
    values = (np.stack(resized).astype(np.float64) / 255 - 0.5) / 0.5
    patches = [
        values[t : t + 2, y : y + 14, x : x + 14].transpose(3, 0, 1, 2).ravel()
        for t in range(0, len(frames), 2)
        for y in range(0, height, 14)
        for x in range(0, width, 14)
    ]
    return np.stack(patches).astype(np.float32)


def both() -> ArlowProcessor:
    return ArlowProcessor(
        ArlowImageProcessor(max_pixels=224 * 224, do_pan_and_scan=True),
        ArlowVideoProcessor(size=SMALL_FRAMES, sample_strategy="fps_based", fps=2),
    )
