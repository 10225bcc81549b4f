"""Which micro-batches have graphs, case by case."""

from __future__ import annotations

from typing import Any

import pytest

from arlow_trainer.config import load_run
from arlow_trainer.plan import HARDWARE, activation_bytes, tokens_per_image
from arlow_trainer.plan.graphs import graphed_sizes
from arlow_trainer.plan.hardware import GIB
from arlow_trainer.plan.memory import DeviceMemory
from arlow_trainer.plan.micro_batches import Sizes

SIZES: Any = {"image": Sizes((8, 24, 96)), "video": Sizes((1, 2, 8))}
HELD = DeviceMemory(3 * GIB, 3 * GIB, 2 * GIB, GIB, 16 * GIB, GIB)


@pytest.mark.parametrize(
    ("gpu", "overrides", "free", "images", "clips", "why"),
    [
        ("h200", (), 100, (8, 24), (1, 2), "computed longer than they are launched"),
        ("h200", ("training.data.videoProbability=0",), 100, (8, 24), (), "computed longer"),
        ("h200", ("training.data.videoProbability=1",), 100, (), (1, 2), "computed longer"),
        ("h200", (), 4, (8,), (1, 2), "no more fit"),
        ("h200", (), 0, (), (), "no more fit"),
        ("rtx-8000", (), 100, (), (), "none is launched longer"),
        ("h200", ("training.gradientCheckpointing=true",), 100, (), (), "are recomputed"),
        (None, (), 100, (), (), "hardware table"),
    ],
)
def test_graphed_sizes(
    gpu: str | None,
    overrides: tuple[str, ...],
    free: int,
    images: tuple[int, ...],
    clips: tuple[int, ...],
    why: str,
) -> None:
    training = load_run("arlow-vision-3072", overrides).spec.training
    hardware = HARDWARE[gpu] if gpu else None
    found = graphed_sizes(training, SIZES, hardware, HELD, HELD.total + free * GIB)
    assert (found.images, found.clips) == (images, clips)
    assert why in found.why
    assert found.memory <= free * GIB
    assert bool(found.memory) == bool(images or clips)
    if images == (8, 24) and clips:
        largest = activation_bytes(training, tokens_per_image(training), 24, 2)
        assert found.memory == largest
