"""Images become patches, against plain numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from processor_inputs import both, image, plain_patches

from arlow_trainer.model import (
    ArlowImageProcessor,
)


def test_images_become_patches() -> None:
    wide, tall = image(100, 150), image(60, 40, seed=1)
    out = ArlowImageProcessor()([wide, tall], return_tensors="pt")
    assert out["image_grid_thw"].tolist() == [[1, 8, 10], [1, 6, 4]]
    assert out["image_grid_thw"].dtype is torch.int64
    assert out["pixel_values"].dtype is torch.float32
    expected = np.concatenate(
        [plain_patches([wide] * 2, 112, 140), plain_patches([tall] * 2, 84, 56)]
    )
    np.testing.assert_allclose(out["pixel_values"].numpy(), expected, atol=1e-6)


def test_every_kind_of_image_reads_the_same() -> None:
    pixels = image(56, 84)
    processor = ArlowImageProcessor()
    expected = processor(pixels)["pixel_values"]
    opaque = Image.fromarray(pixels).convert("RGBA")
    for kind in (Image.fromarray(pixels), opaque, torch.from_numpy(pixels).permute(2, 0, 1)):
        assert np.array_equal(processor(kind)["pixel_values"], expected)
    grey = Image.fromarray(pixels).convert("L")
    three = Image.merge("RGB", [grey] * 3)
    assert np.array_equal(processor(grey)["pixel_values"], processor(three)["pixel_values"])


def test_settings_of_a_call() -> None:
    processor = ArlowImageProcessor()
    pixels = image(56, 84)
    raw = processor(pixels, do_rescale=False, do_normalize=False, do_resize=False)["pixel_values"]
    expected = (plain_patches([pixels] * 2, 56, 84) * 0.5 + 0.5) * 255
    np.testing.assert_allclose(raw, expected, atol=1e-4)
    for bounds in ({"size": {"longest_edge": 56 * 56}}, {"max_pixels": 56 * 56}):
        # As double precision rounds in the public processor: 300 / (300 / 56) is below 56.
        assert processor(image(300, 300), **bounds)["image_grid_thw"].tolist() == [[1, 2, 2]]
        assert ArlowImageProcessor(**bounds).size["longest_edge"] == 56 * 56
    older = ArlowImageProcessor(max_pixels=56 * 56)
    larger = older(image(300, 300), size={"longest_edge": 224 * 224})
    assert larger["image_grid_thw"].tolist() == [[1, 14, 14]]
    assert processor.size == {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
    assert processor.get_number_of_image_patches(100, 150) == 80
    assert processor.get_number_of_image_patches(300, 300, {"max_pixels": 56 * 56}) == 4


def test_pan_and_scan_adds_crops_after_their_picture() -> None:
    long, short = image(280, 840), image(280, 280, seed=1)
    processor = ArlowImageProcessor(do_pan_and_scan=True)
    out = processor([long, short])
    assert out["num_crops"] == [3, 0]
    views = [long, long[:, :280], long[:, 280:560], long[:, 560:], short]
    assert out["image_grid_thw"].tolist() == [[1, 20, 60]] + [[1, 20, 20]] * 4
    expected = ArlowImageProcessor()(views)["pixel_values"]
    assert np.array_equal(out["pixel_values"], expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 448}, "takes the keys shortest_edge and longest_edge"),
        ({"size": {"height": 224, "width": 224}}, "size has the keys height"),
        ({"max_pixels": 100}, "shortest_edge must be above 0 and at most longest_edge"),
        ({"do_resize": False}, "60 x 90 pixels cannot be cut into merge units of 28 x 28"),
    ],
)
def test_mistakes_about_images_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ArlowImageProcessor()(image(60, 90), **options)


@pytest.mark.parametrize("images", [[], [[]]])
def test_no_images_make_empty_tensors(images: list[Any]) -> None:
    for processor in (ArlowImageProcessor(), both()):
        out = processor(images=images, return_tensors="pt")
        shapes = {name: tuple(value.shape) for name, value in out.items()}
        assert shapes == {
            "pixel_values": (0, 1176),
            "image_grid_thw": (0, 3),
            "num_crops": (0,),
        }


def test_crops_are_counted_also_where_there_are_none() -> None:
    out = ArlowImageProcessor()([image(60, 90), image(90, 60)], return_tensors="pt")
    assert out["num_crops"].tolist() == [0, 0]


def test_an_image_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="2 x 402 pixels is too long"):
        ArlowImageProcessor()(image(2, 402))
