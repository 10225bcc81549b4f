"""Draws a reconstruction: original, masked and reconstructed image side by side, a clip in rows."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from arlow_trainer.config.shown_text import printable, printable_lines
from arlow_trainer.pictures.reconstruction import Panels, Pixels

ROWS = ("Original", "Masked", "Reconstruction")
MAX_COLUMNS = 8
DESCRIPTION = "Description"
"""Keyword of a PNG's description (PNG specification, 11.3.3)."""

# Sizes in pixels, for panels of `_PANEL_SIDE` or frames of `_FRAME_SIDE`; scaled with larger ones.
_PANEL_SIDE, _FRAME_SIDE = 380, 160
_WHITE, _TEXT, _FAINT, _MASK = (255, 255, 255), (27, 31, 36), (101, 109, 118), (222, 225, 230)
_MARGIN, _GAP, _FRAME_GAP, _ROW_GAP = 32, 20, 6, 14
_TITLE, _LABEL, _NOTE = 26, 20, 17
_LABEL_HEIGHT = 34


def draw(panels: Panels, title: str, notes: Sequence[str]) -> Image.Image:
    """Draws the reconstruction of an image or clip.

    Args:
        panels: what to draw; with one frame, an image.
        title: heading.
        notes: sentences below the panels, each starting on a new line.
    """
    return (draw_image if len(panels.original) == 1 else draw_clip)(panels, title, notes)


def draw_image(panels: Panels, title: str, notes: Sequence[str]) -> Image.Image:
    """Draws an image's three panels side by side; arguments as in `draw`."""
    row = [frames[0] for frames in _enlarged(panels, [0], _scale(panels, _PANEL_SIDE))]
    height, width = row[0].shape[:2]
    zoomed = _zoomed(min(height, width) / _PANEL_SIDE)
    label_height, step = zoomed(_LABEL_HEIGHT), width + zoomed(_GAP)
    sheet = _Sheet(zoomed, 2 * step + width, title, label_height + height, notes)
    for column, (label, pixels) in enumerate(zip(_labels(panels), row, strict=True)):
        left = sheet.left + column * step
        sheet.text((left, sheet.top), label, _LABEL, _TEXT)
        sheet.paste(pixels, left, sheet.top + label_height)
    return sheet.image


def draw_clip(panels: Panels, title: str, notes: Sequence[str]) -> Image.Image:
    """Draws a clip as three rows of frames: original, masked and reconstruction.

    At most `MAX_COLUMNS` evenly spaced frames are drawn; arguments as in `draw`.
    """
    shown = shown_frames(panels.original.shape[0])
    rows = _enlarged(panels, shown, _scale(panels, _FRAME_SIDE))
    height, width = rows[0][0].shape[:2]
    zoomed = _zoomed(min(height, width) / _FRAME_SIDE)
    label_height, step = zoomed(_LABEL_HEIGHT), width + zoomed(_FRAME_GAP)
    row_step = label_height + height + zoomed(_ROW_GAP)
    numbers = label_height + 2 * row_step + height + zoomed(_FRAME_GAP)
    body = numbers + zoomed(_NOTE)
    sheet = _Sheet(zoomed, (len(shown) - 1) * step + width, title, body, notes)
    for row, (label, frames) in enumerate(zip(_labels(panels), rows, strict=True)):
        top = sheet.top + row * row_step
        sheet.text((sheet.left, top), label, _LABEL, _TEXT)
        for column, pixels in enumerate(frames):
            sheet.paste(pixels, sheet.left + column * step, top + label_height)
    for column, frame in enumerate(shown):
        position = sheet.left + column * step, sheet.top + numbers
        sheet.text(position, f"frame {frame + 1}", _NOTE, _FAINT)
    return sheet.image


def shown_frames(frames: int) -> list[int]:
    """Returns the indexes of the clip's frames that are drawn, ascending and evenly spaced."""
    columns = min(frames, MAX_COLUMNS)
    return [index * frames // columns for index in range(columns)]


def png(image: Image.Image, description: str) -> bytes:
    """Returns an image as a PNG file with a description for readers who cannot see it."""
    text = PngInfo()
    text.add_itxt(DESCRIPTION, printable_lines(description))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def _zoomed(zoom: float) -> Callable[[int], int]:
    return lambda size: round(size * zoom)


class _Sheet:
    """A white image with a title above and notes below a body of `width` by `body` pixels.

    The caller fills the body, whose upper left corner is at `left` and `top`.
    """

    def __init__(
        self,
        zoomed: Callable[[int], int],
        width: int,
        title: str,
        body: int,
        notes: Sequence[str],
    ) -> None:
        self._zoomed = zoomed
        note, line_height = zoomed(_NOTE), zoomed(_NOTE + 9)
        lines = [line for each in notes if each for line in _wrap(each, note, width)]
        heading, title_height = _wrap(title, zoomed(_TITLE), width), zoomed(_TITLE + 10)
        self.left = zoomed(_MARGIN)
        self.top = zoomed(_MARGIN + _TITLE + 24) + (len(heading) - 1) * title_height
        bottom = self.top + body + zoomed(_GAP)
        height = bottom + len(lines) * line_height + self.left - (line_height - note)
        self.image = Image.new("RGB", (width + 2 * self.left, height), _WHITE)
        self._draw = ImageDraw.Draw(self.image)
        for number, line in enumerate(heading):
            self.text((self.left, self.left + number * title_height), line, _TITLE, _TEXT)
        for number, line in enumerate(lines):
            self.text((self.left, bottom + number * line_height), line, _NOTE, _FAINT)

    def text(
        self, position: tuple[int, int], text: str, size: int, colour: tuple[int, int, int]
    ) -> None:
        font = ImageFont.load_default(self._zoomed(size))
        self._draw.text(position, text, fill=colour, font=font)

    def paste(self, pixels: Pixels, left: int, top: int) -> None:
        self.image.paste(Image.fromarray(pixels), (left, top))


def _labels(panels: Panels) -> tuple[str, str, str]:
    original, masked, reconstruction = ROWS
    return original, f"{masked} ({panels.hidden.mean():.0%} hidden)", reconstruction


def _scale(panels: Panels, side: int) -> int:
    """Returns the integer factor of enlargement: with integers, patches stay sharp squares."""
    height, width = panels.original.shape[1:3]
    return -(-side // int(min(height, width)))


def _enlarged(panels: Panels, shown: Sequence[int], scale: int) -> tuple[list[Pixels], ...]:
    original = [_resize(panels.original[index], scale) for index in shown]
    reconstruction = [_resize(panels.reconstruction[index], scale) for index in shown]
    masked = [
        np.where(
            _enlarge_mask(panels.hidden[index], scale)[..., None],
            np.array(_MASK, dtype=np.uint8),
            pixels,
        )
        for index, pixels in zip(shown, original, strict=True)
    ]
    return original, masked, reconstruction


def _resize(pixels: Pixels, scale: int) -> Pixels:
    height, width = pixels.shape[:2]
    size = (width * scale, height * scale)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def _enlarge_mask(mask: npt.NDArray[np.bool_], scale: int) -> npt.NDArray[np.bool_]:
    return mask.repeat(scale, axis=0).repeat(scale, axis=1)


def _wrap(text: str, size: int, width: int) -> list[str]:
    font = ImageFont.load_default(size)
    lines = [""]
    for word in printable(" ".join(text.split())).split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(_shorten(word, size, width))
        else:
            lines[-1] = _shorten(longer, size, width)
    return lines


def _shorten(text: str, size: int, width: int) -> str:
    """Returns a text, without its middle if it is too wide: paths have no spaces to wrap at."""
    font = ImageFont.load_default(size)
    length, shortened = len(text), text
    while font.getlength(shortened) > width:
        length -= 2
        shortened = f"{text[: length // 2]}...{text[len(text) - length // 2 :]}"
    return shortened
