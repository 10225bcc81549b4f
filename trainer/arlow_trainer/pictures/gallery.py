"""The pictures that a run leaves in its store: `pictures/step-<n>-image.png` and `-video.png`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from arlow_trainer.checkpoint.layout import PICTURES
from arlow_trainer.checkpoint.store import Store
from arlow_trainer.data import Modality

_NAME = re.compile(r"step-(\d+)-(image|video)\.png")


@dataclass(frozen=True, order=True)
class Painted:
    """A stored picture: the step it was made after, its modality and its key in the run's store."""

    step: int
    modality: str
    key: str


def picture_key(step: int, modality: Modality) -> str:
    """Returns the key of a step's reconstruction, relative to the run URL."""
    return f"{PICTURES}/step-{step}-{modality}.png"


def painted(store: Store) -> list[Painted]:
    """Returns the run's pictures by step; other files beside them are passed over."""
    matches = (_NAME.fullmatch(name) for name in store.list_files(PICTURES))
    return sorted(
        Painted(int(match.group(1)), match.group(2), f"{PICTURES}/{match.group(0)}")
        for match in matches
        if match
    )
