"""Masks: pure functions of their seed, over merge units, with exact counts."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from arlow_trainer.mae import draw_visible_units, hidden_units, visible_unit_batch

SEEDS = st.integers(0, 2**64 - 1)
UNITS = st.integers(2, 300)
RATIOS = st.floats(0.01, 0.99)


@given(SEEDS, UNITS, RATIOS)
def test_counts_order_and_range(seed: int, units: int, ratio: float) -> None:
    visible = draw_visible_units(seed, units, round(units * ratio))
    assert visible.dtype == np.int64
    assert len(visible) == units - round(units * ratio)
    assert sorted(set(visible.tolist())) == visible.tolist()
    assert all(0 <= unit < units for unit in visible.tolist())


@given(SEEDS, UNITS, RATIOS, st.integers(0, 2**31 - 1))
def test_a_mask_depends_on_its_seed_alone(seed: int, units: int, ratio: float, other: int) -> None:
    first = draw_visible_units(seed, units, round(units * ratio))
    np.random.seed(other)
    torch.manual_seed(other)
    draw_visible_units(other, units, round(units * ratio))
    assert np.array_equal(draw_visible_units(seed, units, round(units * ratio)), first)


@given(st.lists(SEEDS, min_size=1, max_size=5), UNITS, RATIOS)
def test_a_batch_is_its_samples_masks(seeds: list[int], units: int, ratio: float) -> None:
    batch = visible_unit_batch(seeds, units, round(units * ratio))
    alone = [draw_visible_units(seed, units, round(units * ratio)).tolist() for seed in seeds]
    assert batch.dtype == torch.int64
    assert batch.tolist() == alone


@given(st.lists(SEEDS, min_size=1, max_size=5), UNITS, RATIOS)
def test_hidden_units_are_the_complement(seeds: list[int], units: int, ratio: float) -> None:
    visible = visible_unit_batch(seeds, units, round(units * ratio))
    for shown, hidden in zip(visible.tolist(), hidden_units(visible, units).tolist(), strict=True):
        assert hidden == sorted(set(range(units)) - set(shown))


def test_masks_are_even_and_independent() -> None:
    """Every unit is visible a quarter of the time, every pair of units independently so."""
    draws, units = 4000, 16
    shown = np.zeros((draws, units))
    for seed in range(draws):
        shown[seed, draw_visible_units(seed, units, 12)] = 1
    assert np.abs(shown.mean(0) - 0.25).max() < 0.03
    pairs = (shown.T @ shown / draws)[np.triu_indices(units, 1)]
    # Drawn without replacement: 4/16 x 3/15.
    assert np.abs(pairs - 0.05).max() < 0.02


def test_known_masks() -> None:
    """A resumed run must hide what it hid before: these may never change."""
    assert draw_visible_units(0, 16, 12).tolist() == [7, 11, 14, 15]
    assert draw_visible_units(2**64 - 1, 16, 12).tolist() == [5, 7, 9, 11]
