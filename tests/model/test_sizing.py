"""Sizes and crops of images."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arlow_trainer.model.sizing import fitted_size, pan_and_scan_boxes

MIN, MAX = 56 * 56, 28 * 28 * 1280


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((224, 224), (224, 224)),
        ((375, 500), (364, 504)),
        ((30, 30), (56, 56)),
        ((10, 2000), (28, 812)),
        ((3000, 4000), (840, 1148)),
        ((4000, 3000), (1148, 840)),
        # Bounds met exactly: as double precision rounds in the public processor.
        ((38, 38), (84, 84)),
        ((1280, 1296), (980, 980)),
        ((368, 2875), (336, 2772)),
    ],
)
def test_fitted_size(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fitted_size(*size, 28, MIN, MAX) == expected


@given(st.integers(1, 4000), st.integers(1, 4000))
def test_fitted_sizes_are_whole_units_within_the_bounds(height: int, width: int) -> None:
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(ValueError, match="at most 200 times the other"):
            fitted_size(height, width, 28, MIN, MAX)
        return
    rows, columns = fitted_size(height, width, 28, MIN, MAX)
    assert rows % 28 == columns % 28 == 0
    assert MIN <= rows * columns <= MAX
    # The aspect ratio is kept to within one unit on either side.
    assert (rows - 28) / (columns + 28) <= height / width
    assert width / height >= (columns - 28) / (rows + 28)


@pytest.mark.parametrize(
    ("size", "boxes"),
    [
        ((300, 479), []),
        ((300, 900), [(0, 0, 300, 300), (300, 0, 600, 300), (600, 0, 900, 300)]),
        ((901, 300), [(0, 0, 300, 301), (0, 301, 300, 602), (0, 600, 300, 901)]),
        ((300, 480), []),
        ((320, 512), [(0, 0, 256, 320), (256, 0, 512, 320)]),
        ((300, 3000), [(750 * i, 0, 750 * (i + 1), 300) for i in range(4)]),
        ((255, 900), []),
    ],
)
def test_pan_and_scan_boxes(size: tuple[int, int], boxes: list[tuple[int, ...]]) -> None:
    assert pan_and_scan_boxes(*size, 256, 4, 1.6) == boxes
