"""Gradients are reduced once a step: the collectives of two real ranks, counted by the profiler."""

from __future__ import annotations

from collections import Counter

import pytest
from engine_cases import build_runner, samples
from torch.profiler import ProfilerActivity, profile

from arlow_trainer.engine import Ranks
from support.two_ranks import on_two_ranks

MICRO_BATCHES = (1, 2, 4)
EACH = 4  # samples of a rank


def count(ranks: Ranks) -> list[dict[str, int]]:
    """Returns the collectives of a step for every cut of a rank's share."""
    runner = build_runner(2 * EACH, ranks=ranks)
    found = []
    # The first step also makes what later steps reuse.
    for step, parts in enumerate((1, *MICRO_BATCHES)):
        size = EACH // parts
        first = EACH * ranks.rank
        cut = [samples(size, first=first + size * number) for number in range(parts)]
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            assert runner.step(step, cut)
        names = [event.name for event in seen.events() or ()]
        found.append(dict(Counter(name for name in names if name.startswith("c10d::"))))
    return found[1:]


@pytest.fixture(scope="module")
def collectives() -> list[list[dict[str, int]]]:
    """Of each rank, for every cut: how often a step called each collective."""
    return on_two_ranks(count)


def test_a_step_reduces_once_however_it_is_cut(
    collectives: list[list[dict[str, int]]],
) -> None:
    for rank in collectives:
        whole, *cut = rank
        assert sum(number for name, number in whole.items() if "reduce" in name) >= 1
        assert cut == [whole] * len(cut)
