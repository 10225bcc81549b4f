"""How a step is dealt to ranks and micro-batches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arlow_trainer.data.order import Choice, choose, deal

COSTS = {"image": 256, "video": 2048}


def step(samples: int, video_probability: float = 0.25, start: int = 0) -> list[Choice]:
    sizes = {"image": 10_000, "video": 1000}
    return [choose(0, start + i, sizes, video_probability) for i in range(samples)]


@given(
    st.integers(0, 200),
    st.floats(0, 1),
    st.integers(1, 24),
    st.integers(1, 70),
    st.integers(1, 32),
)
def test_deals_are_even_partitions_of_one_modality_each(
    samples: int, probability: float, ranks: int, micro_batch: int, ratio: int
) -> None:
    choices = step(samples, probability)
    costs = {"image": 64, "video": 64 * ratio}
    dealt = deal(choices, costs, ranks, micro_batch)
    assert len(dealt) == ranks
    flat = [choice for share in dealt for plan in share for choice in plan]
    assert sorted(flat, key=lambda c: c.index) == choices
    loads = [sum(costs[c.modality] for plan in share for c in plan) for share in dealt]
    assert max(loads) - min(loads) <= max((costs[c.modality] for c in choices), default=0)
    for share in dealt:
        for plan in share:
            assert len({c.modality for c in plan}) == 1
            cost = sum(costs[c.modality] for c in plan)
            assert cost <= micro_batch * costs["image"] or len(plan) == 1
        for modality in ("image", "video"):
            lengths = [len(plan) for plan in share if plan[0].modality == modality]
            assert not lengths or max(lengths) - min(lengths) <= 1


def test_images_level_what_clips_leave_uneven() -> None:
    dealt = deal(step(256), COSTS, ranks=8, micro_batch=32)
    loads = [sum(COSTS[c.modality] for plan in share for c in plan) for share in dealt]
    assert max(loads) - min(loads) <= COSTS["image"]


def test_micro_batches_are_the_fewest_that_fit() -> None:
    (share,) = deal(step(33, 0.0), COSTS, ranks=1, micro_batch=16)
    assert [len(plan) for plan in share] == [11, 11, 11]
    (share,) = deal(step(5, 1.0), COSTS, ranks=1, micro_batch=16)
    assert [len(plan) for plan in share] == [1, 2, 2]


@pytest.mark.parametrize("ranks", [3, 7])
def test_more_ranks_than_samples_leaves_some_without(ranks: int) -> None:
    dealt = deal(step(2, 0.0), COSTS, ranks, micro_batch=4)
    assert sorted(map(len, dealt)) == [0] * (ranks - 2) + [1, 1]
