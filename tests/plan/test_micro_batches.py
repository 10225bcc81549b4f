"""Into which sizes micro-batches are cut, over whole runs."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arlow_trainer.config import Modality, load_run
from arlow_trainer.data.loader import token_costs
from arlow_trainer.data.order import Choice, choose, deal
from arlow_trainer.plan.micro_batches import (
    MOST_SIZES,
    Sizes,
    clip_cost,
    likely_clips,
    micro_batch_limits,
    micro_batch_sizes,
    rank_shares,
)

STEPS = 600
SET_SIZES: dict[Modality, int] = {"image": 1_281_167, "video": 9_537}


@pytest.fixture(scope="module")
def steps() -> list[list[Choice]]:
    """The first steps of the full run, 256 samples each."""
    return [
        [choose(0, step * 256 + i, SET_SIZES, 0.25) for i in range(256)] for step in range(STEPS)
    ]


@pytest.mark.parametrize(("ranks", "micro_batch"), [(1, 96), (8, 96), (8, 48), (1, 492), (3, 20)])
def test_a_run_has_at_most_four_sizes_a_modality(
    steps: list[list[Choice]], ranks: int, micro_batch: int
) -> None:
    run = load_run("arlow-vision-3072")
    training = run.spec.training
    sizes = micro_batch_sizes(training, run.spec.global_batch_size, ranks, micro_batch)
    limits = micro_batch_limits(training, micro_batch)
    costs = token_costs(training.data, training.model)
    computed: dict[str, Counter[int]] = {"image": Counter(), "video": Counter()}
    drawn: Counter[str] = Counter()
    for choices in steps:
        dealt = deal(choices, costs, ranks, sizes)
        assert sorted(c.index for share in dealt for plan in share for c in plan) == [
            choice.index for choice in choices
        ]
        for plan in (plan for share in dealt for plan in share):
            modality = plan[0].modality
            computed[modality][sizes[modality].holding(len(plan))] += 1
            drawn[modality] += len(plan)
    for modality, counter in computed.items():
        assert 1 <= len(counter) <= MOST_SIZES
        assert max(counter) <= limits[modality]  # type: ignore[index]
    # What is computed in vain, by tokens.
    all_images, all_clips = (sum(n * c for n, c in computed[m].items()) for m in computed)
    ratio = clip_cost(training)
    wasted = (all_images + ratio * all_clips) / (drawn["image"] + ratio * drawn["video"])
    assert 1 <= wasted < 1.03


@given(st.sets(st.integers(1, 60), min_size=1, max_size=4), st.floats(0, 40), st.integers(0, 400))
def test_a_cut_is_a_partition_into_the_sizes(found: set[int], launched: float, count: int) -> None:
    sizes = Sizes(tuple(sorted(found)), launched)
    parts = sizes.cut(count)
    assert sum(parts) == count
    assert all(0 < part <= sizes.holding(part) <= max(found) for part in parts)
    assert all(sizes.holding(part) in found for part in parts)
    assert parts == sorted(parts, reverse=True)


def test_without_a_cost_of_launching_nothing_is_computed_in_vain() -> None:
    sizes = Sizes((1, 4, 16))
    assert sum(map(sizes.holding, sizes.cut(23))) == 23
    assert sizes.cut(0) == []
    # Launching three takes longer than computing one in vain.
    assert Sizes((1, 4, 16), launched=4).cut(23) == [16, 4, 3]


def test_sizes_that_hold_nothing_leave_a_micro_batch_as_it_is() -> None:
    assert Sizes((2, 6)).holding(6) == 6
    assert Sizes((2, 6)).holding(3) == 6
    assert Sizes((2, 6)).holding(7) == 7


@given(st.integers(0, 300), st.integers(0, 80), st.integers(2, 12), st.integers(1, 20))
def test_shares_are_those_that_are_dealt(images: int, clips: int, ratio: int, ranks: int) -> None:
    choices = [choose(0, i, SET_SIZES, float(i < clips)) for i in range(images + clips)]
    costs: dict[Modality, int] = {"image": 1, "video": ratio}
    whole = {"image": Sizes((1000,)), "video": Sizes((1000,))}
    dealt = deal(choices, costs, ranks, whole)  # type: ignore[arg-type]
    found = Counter(
        tuple(sum(c.modality == m for plan in share for c in plan) for m in costs)
        for share in dealt
    )
    expected: Counter[tuple[int, ...]] = Counter()
    for image_share, clip_share, of in rank_shares(images, clips, ratio, ranks):
        expected[image_share, clip_share] += of
    assert +expected == found


def test_likely_clips_surround_the_mean() -> None:
    likely = dict(likely_clips(256, 0.25))
    assert max(likely, key=likely.__getitem__) == 64
    assert min(likely) < 40
    assert max(likely) > 88
    assert list(likely_clips(256, 0)) == [(0, 1.0)]
    assert list(likely_clips(256, 1)) == [(256, 1.0)]


def test_few_samples_are_computed_as_they_are() -> None:
    training = load_run("tiny", ["data.videoProbability=0.5"]).spec.training
    assert micro_batch_sizes(training, 8, 1, 4)["image"].sizes == (1, 2, 3, 4)


def test_sizes_that_no_step_needs_are_left_out() -> None:
    training = load_run("tiny", ["data.videoProbability=0"]).spec.training
    assert micro_batch_sizes(training, 8, 2, 32)["image"].sizes == (4,)
    assert micro_batch_sizes(training, 8, 2, 3)["image"].sizes == (1, 3)
