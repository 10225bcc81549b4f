"""Random and central views: boxes inside the image, pixels of that box."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from arlow_trainer.data import RawSample, center_view, crop_box, decode_image, random_view

SEEDS = st.integers(0, 2**64 - 1)


@given(st.integers(1, 5000), st.integers(1, 5000), SEEDS, st.floats(0.01, 1))
def test_crops_lie_in_the_image(width: int, height: int, seed: int, scale: float) -> None:
    left, top, right, bottom = crop_box(width, height, seed, scale)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


@given(st.integers(200, 3000), SEEDS)
def test_crops_have_the_area_and_ratio_asked_for(side: int, seed: int) -> None:
    left, top, right, bottom = crop_box(side, side, seed, 0.2)
    width, height = right - left, bottom - top
    assert 0.2 * 0.98 <= width * height / side**2 <= 1
    assert 3 / 4 * 0.98 <= width / height <= 4 / 3 * 1.02


def test_crops_spread_over_area_ratio_and_place() -> None:
    boxes = np.array([crop_box(500, 375, seed, 0.2) for seed in range(3000)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    area = width * height / (500 * 375)
    # Large areas with a tall box do not fit and are drawn again, so the mean is below 0.6.
    assert area.mean() == pytest.approx(0.495, abs=0.015)
    assert area.min() < 0.21
    assert area.max() > 0.95
    assert abs(np.log(width / height).mean()) < 0.1
    assert np.abs((boxes[:, 0] / np.maximum(500 - width, 1)).mean() - 0.5) < 0.02
    assert np.abs((boxes[:, 1] / np.maximum(375 - height, 1)).mean() - 0.5) < 0.02


@pytest.mark.parametrize(("width", "height"), [(4000, 10), (10, 4000)])
def test_a_strip_gets_the_largest_central_box(width: int, height: int) -> None:
    left, top, right, bottom = crop_box(width, height, 0, 0.9)
    assert (right - left, bottom - top) == ((13, 10) if width > height else (10, 13))
    assert abs(left + right - width) <= 1
    assert abs(top + bottom - height) <= 1


def test_a_view_is_the_box_of_the_image(photographs: list[Path]) -> None:
    image = decode_image(RawSample("photograph", str(photographs[0])))
    view = random_view([image], 64, seed=9, min_scale=0.3, flip=False)
    assert view.shape == (1, 64, 64, 3)
    assert view.dtype == np.uint8
    box = crop_box(*image.size, 9, 0.3)
    expected = image.crop(box).resize((64, 64), Image.Resampling.BICUBIC)
    # Pillow sees a few pixels past the box when it crops and resizes in one go.
    assert np.abs(view[0].astype(int) - np.asarray(expected)).mean() < 1


def test_half_the_views_are_mirrored(photographs: list[Path]) -> None:
    image = decode_image(RawSample("photograph", str(photographs[0]))).resize((64, 64))
    mirrored = 0
    for seed in range(1000, 1400):
        plain = random_view([image], 16, seed, 0.5, flip=False)
        flipped = random_view([image], 16, seed, 0.5, flip=True)
        if not np.array_equal(plain, flipped):
            assert np.array_equal(plain, flipped[:, :, ::-1])
            mirrored += 1
    assert mirrored / 400 == pytest.approx(0.5, abs=0.07)


def test_a_clip_shares_crop_and_flip(photographs: list[Path]) -> None:
    image = decode_image(RawSample("photograph", str(photographs[0])))
    for seed in range(6):
        view = random_view([image] * 3, 32, seed, 0.2, flip=True)
        assert view.shape == (3, 32, 32, 3)
        assert np.array_equal(view[0], view[1])
        assert np.array_equal(view[0], view[2])


def test_the_center_is_the_largest_square() -> None:
    pixels = np.zeros((40, 100, 3), np.uint8)
    pixels[:, 30:70] = 255
    view = center_view([Image.fromarray(pixels)], 20)
    assert view.shape == (1, 20, 20, 3)
    assert view[:, :, 1:-1].min() == 255
    assert center_view([Image.fromarray(pixels)] * 4, 8).shape == (4, 8, 8, 3)
