"""Drawings of reconstructed images and clips."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from arlow_trainer.pictures.drawing import DESCRIPTION, draw, png, shown_frames
from arlow_trainer.pictures.reconstruction import Panels, Score

ORIGINAL, RECONSTRUCTION = (200, 30, 30), (30, 30, 200)


def flat_panels(frames: int, size: int = 32) -> Panels:
    """A red original, a blue reconstruction, the right half hidden."""
    hidden = np.zeros((frames, size, size), dtype=bool)
    hidden[:, :, size // 2 :] = True
    original = np.full((frames, size, size, 3), ORIGINAL, dtype=np.uint8)
    reconstruction = np.where(hidden[..., None], np.array(RECONSTRUCTION, dtype=np.uint8), original)
    return Panels(original, reconstruction, hidden, Score(20.0, 10.0, None))


def area(image: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(image) == colour).all(axis=-1).sum())


def test_an_image_is_three_enlarged_panels() -> None:
    image = draw(flat_panels(1), "title", ["note"])
    side = 384  # the smallest multiple of 32 that is at least 380
    assert image.width == 3 * side + 2 * 20 + 2 * 32
    # Red: all of the original, half of the masked and of the reconstruction (its edge is blended).
    assert area(image, ORIGINAL) == pytest.approx(2 * side * side, rel=0.04)
    assert area(image, RECONSTRUCTION) == pytest.approx(side * side / 2, rel=0.1)
    assert area(image, (222, 225, 230)) == side * side // 2


def test_a_clip_is_three_rows_of_frames() -> None:
    image = draw(flat_panels(4), "title", [])
    assert area(image, (222, 225, 230)) == 4 * 160 * 80
    assert area(image, ORIGINAL) == pytest.approx(4 * 2 * 160 * 160, rel=0.06)


@pytest.mark.parametrize(
    ("frames", "shown"),
    [
        (1, [0]),
        (4, [0, 1, 2, 3]),
        (8, list(range(8))),
        (16, list(range(0, 16, 2))),
        (12, [0, 1, 3, 4, 6, 7, 9, 10]),
    ],
)
def test_shown_frames(frames: int, shown: list[int]) -> None:
    assert shown_frames(frames) == shown


@pytest.mark.parametrize("frames", [1, 4])
def test_long_text_stays_inside_the_margins(frames: int) -> None:
    long = "/folder" * 60
    image = draw(flat_panels(frames), f"{long}, step 1", [long, "word " * 80])
    margins = np.asarray(image)[:, [*range(20), *range(image.width - 20, image.width)]]
    assert (margins == 255).all()
    short = draw(flat_panels(frames), "title", ["note"])
    assert image.width == short.width
    assert image.height > short.height


def test_a_long_title_continues_on_another_line() -> None:
    title = "carphone_pristine.mp4, reconstructed by demo after step 450"
    one_line, wrapped = draw(flat_panels(4), "title", []), draw(flat_panels(4), title, [])
    assert one_line.height < wrapped.height < one_line.height + 60


def test_a_png_has_a_description() -> None:
    drawn = draw(flat_panels(1), "title", ["note"])
    with Image.open(io.BytesIO(png(drawn, "two lines\nof wörds"))) as image:
        assert image.format == "PNG"
        assert image.info[DESCRIPTION] == "two lines\nof wörds"
        assert np.array_equal(np.asarray(image), np.asarray(drawn))
