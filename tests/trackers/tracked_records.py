"""What a small run hands to its trackers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from arlow_trainer.trackers import Picture, Scalars, TrackedRun

PICTURE = "pictures/step-10-image.png"
SETTINGS = {"preset": "tiny", "optimizer": {"learningRate": 0.003, "betas": [0.9, 0.95]}}

Tracked = Callable[..., TrackedRun]


def scalars(steps: Iterable[int], factor: float = 1.0) -> list[Scalars]:
    """A loss that rises with the step, a second after another."""
    return [Scalars(step, 1e9 + step, {"loss": step * factor, "lr": 1e-3}) for step in steps]


def probed(step: int, accuracy: float) -> Scalars:
    return Scalars(step, 1e9 + step, {"probe_accuracy/knn": accuracy})


def picture(step: int) -> Picture:
    return Picture(step, 1e9 + step, "reconstruction/image", PICTURE)
