"""How a step is dealt to ranks and micro-batches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arlow_trainer.config import Modality
from arlow_trainer.data.order import Choice, choose, deal
from arlow_trainer.plan.micro_batches import Sizes

COSTS: dict[Modality, int] = {"image": 256, "video": 2048}


def up_to(images: int, ratio: int = 8) -> dict[Modality, Sizes]:
    """A size and its half, with clips counted by their cost."""
    clips = max(1, images // ratio)
    return {
        "image": Sizes(tuple(sorted({images, -(-images // 2)})), launched=images / 3),
        "video": Sizes(tuple(sorted({clips, -(-clips // 2)})), launched=clips / 3),
    }


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
    costs: dict[Modality, int] = {"image": 64, "video": 64 * ratio}
    sizes = up_to(micro_batch, ratio)
    dealt = deal(choices, costs, ranks, sizes)
    assert len(dealt) == ranks
    flat = [choice for share in dealt for plan in share for choice in plan]
    assert sorted(flat, key=lambda c: c.index) == choices
    loads = [sum(costs[c.modality] for plan in share for c in plan) for share in dealt]
    assert max(loads) - min(loads) <= max((costs[c.modality] for c in choices), default=0)
    for share in dealt:
        for plan in share:
            assert len({c.modality for c in plan}) == 1
            assert len(plan) <= sizes[plan[0].modality].sizes[-1]
        for modality in costs:
            lengths = [len(plan) for plan in share if plan[0].modality == modality]
            assert lengths == sizes[modality].cut(sum(lengths))


def test_images_level_what_clips_leave_uneven() -> None:
    dealt = deal(step(256), COSTS, ranks=8, sizes=up_to(32))
    loads = [sum(COSTS[c.modality] for plan in share for c in plan) for share in dealt]
    assert max(loads) - min(loads) <= COSTS["image"]


def test_a_share_is_cut_into_the_sizes() -> None:
    (share,) = deal(step(33, 0.0), COSTS, ranks=1, sizes=up_to(16))
    assert [len(plan) for plan in share] == [16, 16, 1]
    (share,) = deal(step(5, 1.0), COSTS, ranks=1, sizes=up_to(16))
    assert [len(plan) for plan in share] == [2, 2, 1]


@pytest.mark.parametrize("ranks", [3, 7])
def test_more_ranks_than_samples_leaves_some_without(ranks: int) -> None:
    dealt = deal(step(2, 0.0), COSTS, ranks, up_to(4))
    assert sorted(map(len, dealt)) == [0] * (ranks - 2) + [1, 1]
