"""Pictures of every mode as RGB, by the rule of the trainer and of the exported processor."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from arlow_trainer.data import RawSample, decode_image
from arlow_trainer.model import ArlowImageProcessor
from arlow_trainer.model.rgb import to_eight_bits, to_rgb

RAMP = np.arange(64 * 64, dtype=np.float64).reshape(64, 64) / (64 * 64 - 1)


def stored(image: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def deep(top: float, dtype: str) -> Image.Image:
    return Image.fromarray((RAMP * top).astype(dtype))


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray((RAMP * 255).astype(np.uint8)).crop((0, 0, 64, 40))
    return stored(image, "PNG", exif=exif)


def see_through() -> Image.Image:
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, 32:] = (200, 100, 0, 128)
    return Image.fromarray(pixels)


def palette() -> Image.Image:
    image = Image.new("P", (64, 64), 3)
    image.putpalette([value for grey in range(256) for value in (grey, grey, grey)])
    return image


def deep_png(colour_type: int, transparent: int) -> bytes:
    """A PNG of 16 bits, grey or RGB, whose right half has the value that is transparent."""
    channels = 3 if colour_type == 2 else 1
    pixels = np.full((8, 8, channels), 3, ">u2")
    pixels[:, 4:] = transparent
    row = [b"\0" + each.tobytes() for each in pixels]
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in (
        (b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, colour_type, 0, 0, 0)),
        (b"tRNS", struct.pack(">H", transparent) * channels),
        (b"IDAT", zlib.compress(b"".join(row))),
        (b"IEND", b""),
    ):
        crc = struct.pack(">I", zlib.crc32(kind + data))
        content += struct.pack(">I", len(data)) + kind + data + crc
    return content


PICTURES = {
    "16-bit grey with a transparent value": deep_png(0, 30_000),
    "16-bit RGB with a transparent value": deep_png(2, 30_000),
    "16-bit PNG": stored(deep(65535, "uint16"), "PNG"),
    "12 bits in 16": stored(deep(4095, "uint16"), "PNG"),
    "16-bit TIFF": stored(deep(65535, "uint16"), "TIFF"),
    "32-bit TIFF": stored(deep(10**6, "int32"), "TIFF"),
    "floats up to 1": stored(deep(1, "float32"), "TIFF"),
    "floats up to 255": stored(deep(255, "float32"), "TIFF"),
    "RGBA": stored(see_through(), "PNG"),
    "LA": stored(see_through().convert("LA"), "PNG"),
    "palette": stored(palette(), "PNG", transparency=3),
    "grey with a transparent value": stored(Image.new("L", (64, 64), 3), "PNG", transparency=3),
    "CMYK": stored(Image.new("CMYK", (64, 64), (1, 2, 3, 4)), "TIFF"),
    "1": stored(Image.new("1", (64, 64), 1), "PNG"),
    "EXIF": turned(),
}


@pytest.mark.parametrize("name", PICTURES)
def test_trainer_and_processor_see_one_picture(name: str) -> None:
    trained = decode_image(RawSample(name, PICTURES[name]))
    assert trained.mode == "RGB"
    processor = ArlowImageProcessor()
    shown, expected = (
        processor(images=picture, return_tensors="pt")["pixel_values"]
        for picture in (Image.open(io.BytesIO(PICTURES[name])), trained)
    )
    assert torch.equal(shown, expected)


@pytest.mark.parametrize(
    "name",
    ["16-bit PNG", "12 bits in 16", "16-bit TIFF", "32-bit TIFF", "floats up to 1"],
)
def test_more_than_8_bits_are_scaled_by_their_range(name: str) -> None:
    seen = np.asarray(decode_image(RawSample(name, PICTURES[name])))[..., 0].astype(float)
    # 10^6 is 0.95 of what 20 bits hold.
    top = 255 * (10**6 / (2**20 - 1) if name == "32-bit TIFF" else 1)
    assert np.abs(seen - RAMP * top).max() <= 1


def test_what_is_transparent_is_laid_over_white() -> None:
    seen = np.asarray(to_rgb(see_through()))
    assert seen[0, 0].tolist() == [255, 255, 255]
    assert np.abs(seen[0, 63].astype(int) - (227, 177, 127)).max() <= 1
    for name in ("palette", "grey with a transparent value"):
        assert np.asarray(decode_image(RawSample(name, PICTURES[name]))).min() == 255
    for kind in ("grey", "RGB"):
        name = f"16-bit {kind} with a transparent value"
        seen = np.asarray(decode_image(RawSample(name, PICTURES[name])))
        assert seen[:, :4].max() < 2
        assert seen[:, 4:].min() == 255


def test_negative_values_are_scaled_by_their_own_range() -> None:
    assert to_eight_bits(np.array([-1000.0, 0.0, 1000.0])).tolist() == [0, 128, 255]
    assert to_eight_bits(np.zeros(2)).tolist() == [0, 0]


def test_values_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="no finite numbers"):
        to_eight_bits(np.array([0.0, np.nan]))


def test_arrays_of_more_than_8_bits_are_scaled_and_floats_up_to_1_warned_of() -> None:
    processor = ArlowImageProcessor()
    grey = np.repeat((RAMP * 65535).astype(np.uint16)[..., None], 3, -1)
    eight = np.repeat((RAMP * 255 + 0.5).astype(np.uint8)[..., None], 3, -1)
    seen, expected = (
        processor(images=each, return_tensors="pt")["pixel_values"] for each in (grey, eight)
    )
    assert (seen - expected).abs().max() < 0.01
    with pytest.warns(UserWarning, match=r"divides by 255: give do_rescale=False"):
        processor(images=np.full((64, 64, 3), 0.5, np.float32), return_tensors="pt")
