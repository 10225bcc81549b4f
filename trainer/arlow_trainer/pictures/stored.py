"""The pictures stored with a run: `pictures/step-<n>-image.png` and `-video.png`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from arlow_trainer.config import Modality
from arlow_trainer.storage.store import Store

PICTURES_FOLDER = "pictures"
_NAME = re.compile(r"step-([0-9]{1,18})-(image|video)\.png")


@dataclass(frozen=True, order=True)
class StoredPicture:
    """A stored picture: its step, its modality and its key, relative to the run URL."""

    step: int
    modality: str
    key: str


def picture_key(step: int, modality: Modality) -> str:
    """Returns the key of a step's reconstruction, relative to the run URL."""
    return f"{PICTURES_FOLDER}/step-{step}-{modality}.png"


def list_pictures(store: Store) -> list[StoredPicture]:
    """Returns the run's pictures, sorted by step; other files in the folder are ignored."""
    matches = (_NAME.fullmatch(name) for name in store.list_files(PICTURES_FOLDER))
    return sorted(
        StoredPicture(int(match.group(1)), match.group(2), f"{PICTURES_FOLDER}/{match.group(0)}")
        for match in matches
        if match
    )
