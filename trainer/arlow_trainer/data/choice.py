"""Which sample a global index is: modality, position in its set, and the seed of its view.

Everything here is a pure function of (seed, global sample index), so that the whole state of the
data is one integer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .shuffle import Draw, hash64, permute, uniform

Modality = Literal["image", "video"]
MODALITIES: tuple[Modality, ...] = ("image", "video")


@dataclass(frozen=True)
class Choice:
    """One sample of the run."""

    index: int
    """Global sample index: step x global batch size + place in the step."""
    modality: Modality
    position: int
    """Row in the modality's set."""
    seed: int
    """64 bits that crop, clip and flip are drawn from."""

    @property
    def mask_seed(self) -> int:
        """64 bits that the mask is drawn from."""
        return hash64(self.seed, Draw.MASK)


def modality_at(seed: int, index: int, video_probability: float) -> Modality:
    """Returns the modality of a global sample index."""
    return "video" if uniform(seed, index, Draw.MODALITY) < video_probability else "image"


def choose(
    seed: int,
    index: int,
    sizes: Mapping[Modality, int],
    video_probability: float,
    attempt: int = 0,
) -> Choice:
    """Returns the sample of a global index.

    The modality is drawn with `video_probability`; the set of that modality, with `sizes` rows, is
    shuffled anew every `size` indexes. `attempt` k > 0 is the k-th replacement of a broken file:
    the same modality and seed at another position, all different for k < size.
    """
    modality = modality_at(seed, index, video_probability)
    size = sizes[modality]
    pass_, place = divmod(index, size)
    position = permute(place, size, hash64(seed, Draw.PASS, modality == "video", pass_))
    if attempt > 0 and size > 1:
        key = hash64(seed, index, Draw.REPLACEMENT)
        position = (position + 1 + permute((attempt - 1) % (size - 1), size - 1, key)) % size
    return Choice(index, modality, position, hash64(seed, index, Draw.VIEW))
