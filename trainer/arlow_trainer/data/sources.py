"""Opening data sets by their configuration, wherever they are."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from arlow_trainer.config import DataSection, Modality, SourceSection
from arlow_trainer.config.errors import ArlowError, DataError
from arlow_trainer.data.decode import BrokenSample, Source, decode_image
from arlow_trainer.data.errors import empty_set
from arlow_trainer.data.folder import Selection, is_folder, open_folder
from arlow_trainer.data.table import check_hub, open_hub, training_settings
from arlow_trainer.data.video import decode_clip

_MAX_TRIED = 8

# Of the project, whose lines are shown from INFO on.
log = logging.getLogger("arlow.data")


def open_source(section: SourceSection, modality: Modality) -> Source:
    """Opens a set and decodes one of its samples.

    Raises DataError, CredentialsError or StoreError, saying what is wrong and what to do, when the
    set cannot be found, read or decoded, or is empty.
    """
    source, selection = select_source(section, modality)
    if selection is not None:
        log.info("%s: %s", section.path, selection)
    if not len(source):
        settings = training_settings(modality)
        raise empty_set(source.name, settings.path, settings.split)
    _check_decodes(source, modality)
    return source


def select_source(section: SourceSection, modality: Modality) -> tuple[Source, Selection | None]:
    """Opens a set, and returns with it what was chosen of a folder. Decodes nothing.

    Raises DataError, CredentialsError, StoreError.
    """
    if is_folder(section.path):
        return open_folder(section, modality)
    return open_hub(section, modality), None


def open_sources(data: DataSection) -> dict[Modality, Source]:
    """Opens the sets that a run draws from, by modality. Raises as `open_source` does.

    Mistakes in either set are reported before the samples of the other are downloaded.
    """
    drawn = data.drawn
    _check_hub_sets(drawn)
    # Videos first: most often a folder, which opens at once, where the images are a download.
    opened = {modality: open_source(drawn[modality], modality) for modality in reversed(drawn)}
    return {modality: opened[modality] for modality in drawn}


def _check_hub_sets(drawn: Mapping[Modality, SourceSection]) -> None:
    """Checks the sets that come from the hub, and reports the mistakes in all of them at once."""
    wrong: list[ArlowError] = []
    for modality, section in drawn.items():
        try:
            if not is_folder(section.path):
                check_hub(section, modality)
        except ArlowError as error:
            wrong.append(error)
    if wrong:
        raise type(wrong[0])("\n".join(map(str, wrong))) from wrong[0]


def _check_decodes(source: Source, modality: Modality) -> None:
    """Decodes the first readable one of a few samples spread over the set, or raises DataError."""
    size = len(source)
    reasons = []
    for position in sorted({i * size // _MAX_TRIED for i in range(_MAX_TRIED)}):
        try:
            raw = source.read(position)
            if modality == "image":
                decode_image(raw)
            else:
                decode_clip(raw, frames=1, stride=1)
        except BrokenSample as broken:
            reasons.append(str(broken))
        else:
            return
    raise DataError(
        f"{source.name} holds {size} {modality}s, and none of the {len(reasons)} tried can be "
        f"decoded:\n  " + "\n  ".join(reasons) + f"\nPut readable {modality}s there, or name "
        f"another set in data.{modality}s"
    )
