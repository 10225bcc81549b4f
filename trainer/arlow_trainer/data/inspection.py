"""What a run would use of a data set: how much of it, what not and why, and whether it decodes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from arlow_trainer.config import DataSection, Modality, SourceSection
from arlow_trainer.config.errors import ArlowError, DataError
from arlow_trainer.data.decode import BrokenSample, Source, decode_image
from arlow_trainer.data.folder import is_folder
from arlow_trainer.data.order import choose
from arlow_trainer.data.sources import select_source
from arlow_trainer.data.video import decode_clip
from arlow_trainer.data.views import Pixels, random_view

_TRIED: dict[Modality, int] = {"image": 32, "video": 8}
_SHEET_ROWS: dict[Modality, int] = {"image": 4, "video": 6}
_SHEET_COLUMNS = 8
_GAP = 4


@dataclass(frozen=True)
class Inspection:
    """What was found of one set."""

    path: str
    modality: Modality
    used: int
    """Samples of the set."""
    of: int
    """Samples that would be, if all files belonged to the split."""
    split: str | None
    """None where the set has no splits."""
    splits: Mapping[str, int]
    """How many files of a folder each of its splits has, the most first."""
    formats: Mapping[str, int]
    """How many files of the split there are, by extension, the most first."""
    ignored: Mapping[str, int]
    """How many other files there are, by extension."""
    tried: int
    sizes: Mapping[str, int]
    """How many of the samples tried have a size, such as `640 x 480`, the most first."""
    seconds: float
    """Mean time to read and decode one sample."""
    unreadable: Sequence[tuple[str, str]]
    """Name and reason of the samples tried that are broken."""

    def as_json(self) -> dict[str, Any]:
        """Returns it as `arlow data inspect --json` prints it."""
        return {
            "path": self.path,
            "modality": self.modality,
            "used": self.used,
            "of": self.of,
            "split": self.split,
            "splits": dict(self.splits),
            "formats": dict(self.formats),
            "ignored": dict(self.ignored),
            "tried": self.tried,
            "sizes": dict(self.sizes),
            "secondsPerSample": round(self.seconds, 5),
            "unreadable": [{"name": name, "why": why} for name, why in self.unreadable],
        }


def guess_modality(section: SourceSection) -> Modality:
    """Returns "image", or "video" where a folder holds no images; opens it for that.

    Raises as `open_source` does where it holds neither.
    """
    if not is_folder(section.path):
        return "image"
    wrong: list[ArlowError] = []
    for modality in ("image", "video"):
        try:
            if len(select_source(section, modality)[0]):
                return modality
        except DataError as error:
            wrong.append(error)
    raise wrong[0] if wrong else DataError(f"{section.path} is empty; name another set")


def inspect(section: SourceSection, modality: Modality, data: DataSection) -> Inspection:
    """Opens a set as a run on `data` does, and decodes samples spread over it.

    Raises DataError where it cannot be used or none of them decodes, CredentialsError, StoreError.
    """
    source, selection = select_source(section, modality)
    total = len(source)
    if not total:
        raise DataError(f"{section.path} is empty; name another set or split")
    count = min(total, _TRIED[modality])
    sizes: dict[str, int] = {}
    unreadable = []
    start = time.perf_counter()
    for position in sorted({number * total // count for number in range(count)}):
        try:
            frames = _decoded(source, position, modality, data, None)
        except BrokenSample as broken:
            unreadable.append((broken.name, broken.reason))
            continue
        size = "{} x {}".format(*frames[0].size)
        sizes[size] = sizes.get(size, 0) + 1
    seconds = (time.perf_counter() - start) / count
    if not sizes:
        raise DataError(
            f"{source.name}: none of {count} {modality}s tried can be decoded:\n  "
            + "\n  ".join(f"{name}: {why}" for name, why in unreadable)
        )
    of = total
    if selection is not None and selection.used:
        # Of tables, whose rows are not counted where they are not used: by their number.
        of = total * selection.of // selection.used
    return Inspection(
        section.path,
        modality,
        total,
        of,
        selection.split if selection is not None else section.split,
        selection.splits if selection is not None else {},
        selection.formats if selection is not None else {},
        selection.passed_over if selection is not None else {},
        count,
        dict(sorted(sizes.items(), key=lambda item: -item[1])),
        seconds,
        unreadable,
    )


def contact_sheet(
    section: SourceSection, modality: Modality, data: DataSection, seed: int
) -> Image.Image:
    """Draws the first samples that a run of `seed` on this set alone trains on, as it sees them.

    Images in rows; of videos a clip a row, as many of its frames as fit, spread over it. Broken
    samples are left out. Raises as `inspect` does.
    """
    source, _ = select_source(section, modality)
    rows = _SHEET_ROWS[modality]
    wanted = rows * _SHEET_COLUMNS if modality == "image" else rows
    drawn: list[Pixels] = []
    for index in range(2 * wanted):
        choice = choose(seed, index, {modality: len(source)}, float(modality == "video"))
        try:
            frames = _decoded(source, choice.position, modality, data, choice.seed)
        except BrokenSample:
            continue
        drawn.append(
            random_view(frames, data.image_size, choice.seed, data.min_crop_scale, data.flip)
        )
        if len(drawn) == wanted:
            break
    if not drawn:
        raise DataError(f"{source.name}: no sample can be decoded")
    if modality == "image":
        tiles = [view[0] for view in drawn]
        lines = [tiles[at : at + _SHEET_COLUMNS] for at in range(0, len(tiles), _SHEET_COLUMNS)]
    else:
        lines = [list(view[_spread(len(view))]) for view in drawn]
    side = data.image_size + _GAP
    width = side * max(map(len, lines)) - _GAP
    sheet = Image.new("RGB", (width, side * len(lines) - _GAP), "white")
    for row, line in enumerate(lines):
        for column, tile in enumerate(line):
            sheet.paste(Image.fromarray(np.ascontiguousarray(tile)), (column * side, row * side))
    return sheet


def _spread(count: int) -> list[int]:
    shown = min(count, _SHEET_COLUMNS)
    return [number * count // shown for number in range(shown)]


def _decoded(
    source: Source, position: int, modality: Modality, data: DataSection, seed: int | None
) -> list[Image.Image]:
    raw = source.read(position)
    if modality == "image":
        return [decode_image(raw)]
    return decode_clip(raw, data.clip_frames, data.frame_stride, seed)
