"""Graphs of small micro-batches: the same training, by replays of what was recorded once.

The recorder emulates CUDA's on a CPU (`recording`); `test_engine_gpu` has the same with CUDA's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from engine_cases import Samples, build_runner, samples, weights
from recording import EmulatedRecorder

from arlow_trainer.engine import Ranks, StepRunner
from arlow_trainer.engine.graphs import Graphs
from arlow_trainer.plan.micro_batches import Sizes

SIZES = {"image": Sizes((3, 8)), "video": Sizes((2,))}
GRAPHED: dict[Any, Any] = {"image": (3,), "video": (2,)}
"""Eight images stay plain."""


def batch(step: int) -> list[Samples]:
    """Full and filled micro-batches of images and clips, a graph's and a plain one between."""
    first = 20 * step
    return [
        samples(3, first=first),
        samples(2, 4, first=first + 3),
        samples(7, first=first + 5),
        samples(2, first=first + 12),
        samples(1, 4, first=first + 14),
    ]


def both(
    steps: int, change: Callable[[StepRunner, int], None] = lambda *_: None, **options: Any
) -> tuple[StepRunner, StepRunner, EmulatedRecorder]:
    """Runners after as many steps, one all plain, the other with graphs."""
    recorder = EmulatedRecorder()
    plain = build_runner(15, sizes=SIZES, **options)
    graphed = build_runner(15, sizes=SIZES, graphs=Graphs(GRAPHED, recorder), **options)
    for step in range(steps):
        for runner in (plain, graphed):
            change(runner, step)
            assert runner.step(step, batch(step))
    return plain, graphed, recorder


def equal(a: StepRunner, b: StepRunner) -> bool:
    ours, theirs = weights(a), weights(b)
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_replays_are_the_plain_training_to_the_bit(alone: Ranks, precision: Any) -> None:
    plain, graphed, recorder = both(4, precision=precision)
    # A trial of each shape, then four micro-batches of five in each of three steps.
    assert recorder.replays == 2 + 3 * 4
    assert equal(plain, graphed)
    assert plain.grad_norm() == graphed.grad_norm()
    assert plain.take_losses().means(alone) == graphed.take_losses().means(alone)
