"""A small labelled set: pictures of stripes, one folder a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CLASSES = ("across", "down")


def stripes(label: str, seed: int) -> Image.Image:
    """A noisy picture of 40 x 36 pixels with stripes across or down."""
    noise = np.random.default_rng(seed)
    wave = 80 * np.sin(np.arange(40) * 0.8 + noise.uniform(0, 6))
    wave = np.tile(wave, (36, 1)) if label == "down" else np.tile(wave[:36, None], (1, 40))
    pixels = 128 + wave[..., None] + noise.normal(0, 25, (36, 40, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_folders(folder: Path, train: int = 12, test: int = 8) -> Path:
    for split, count in (("train", train), ("test", test)):
        for index in range(count):
            label = CLASSES[index % 2]
            path = folder / split / label / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            stripes(label, index + 1000 * (split == "test")).save(path)
    return folder


@pytest.fixture(name="folder")
def class_set(tmp_path: Path) -> Path:
    """Class folders of 12 training and 8 test images."""
    return write_folders(tmp_path / "set")
