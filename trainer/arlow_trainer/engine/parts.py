"""What a step computes at once, its losses, and what of it a device refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from arlow_trainer.config import Modality
from arlow_trainer.engine.graphs import Key
from arlow_trainer.engine.ranks import Ranks


class MicroBatch(Protocol):
    """What the step needs of a micro-batch: samples of one modality and grid."""

    @property
    def modality(self) -> Modality: ...
    @property
    def frames(self) -> Tensor: ...
    @property
    def mask_seeds(self) -> Sequence[int]: ...


@dataclass
class LossSums:
    """Losses summed over samples by modality: float32 [4], image sum and count, video likewise."""

    values: Tensor

    def means(self, ranks: Ranks) -> tuple[float, float | None, float | None]:
        """Returns the mean loss over all samples, over images, over videos (None: there were
        none). Sums over ranks, and waits for the device."""
        image, images, video, videos = ranks.sum(self.values.tolist())
        mean = (image + video) / (images + videos) if images + videos else float("nan")
        return mean, image / images if images else None, video / videos if videos else None


@dataclass(frozen=True)
class Part:
    """Samples of a micro-batch that are computed at once, and how many are computed."""

    modality: Modality
    frames: Tensor
    mask_seeds: Sequence[int]
    size: int

    @property
    def key(self) -> Key:
        """Of its graph."""
        return self.modality, self.size, tuple(self.frames.shape[1:])


@dataclass(frozen=True)
class Refusal:
    """A part that a rank could not compute.

    Attributes:
        cause: the device had no memory for it; or its blocks may not have been compiled; or its
            graph could not be recorded, or is wrong.
    """

    modality: Modality
    size: int
    message: str
    cause: Literal["memory", "compiling", "graph"] = "memory"


def describe_halved(halved: Mapping[Modality, Refusal], limits: Mapping[Modality, int]) -> str:
    """Says which parts were refused for want of memory, and in what they are computed now."""
    changes = "; ".join(
        f"micro-batches of {found.size} {'images' if modality == 'image' else 'clips'} did not "
        f"fit, and are computed in {limits[modality]} at once from now on"
        for modality, found in halved.items()
    )
    message = next(iter(halved.values())).message
    return (
        f"the device has too little memory: {changes}. The step was done again, and the "
        f"training stays the same ({message})"
    )
