"""Which sample an index gets, and which replaces a broken one."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arlow_trainer.data.order import choose

SIZES = {"image": 1000, "video": 130}


def test_is_a_pure_function() -> None:
    assert choose(1, 99, SIZES, 0.25) == choose(1, 99, SIZES, 0.25)
    assert choose(1, 99, SIZES, 0.25).seed != choose(2, 99, SIZES, 0.25).seed
    assert choose(1, 99, SIZES, 0.25).seed != choose(1, 100, SIZES, 0.25).seed


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_modality_has_its_probability(probability: float) -> None:
    drawn = Counter(choose(0, i, SIZES, probability).modality for i in range(8000))
    assert drawn["video"] / 8000 == pytest.approx(probability, abs=0.015)


def test_one_set_needs_no_other() -> None:
    assert choose(0, 5, {"image": 3}, 0.0).modality == "image"
    assert choose(0, 5, {"video": 3}, 1.0).modality == "video"


def test_a_pass_shows_every_row_once_and_passes_differ() -> None:
    passes = [
        [choose(4, p * 50 + i, {"image": 50}, 0.0).position for i in range(50)] for p in (0, 1)
    ]
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(50))
    assert passes[0] != passes[1]


def test_replacements_are_all_other_rows() -> None:
    attempts = [choose(0, 17, {"image": 9}, 0.0, attempt=k) for k in range(9)]
    assert sorted(a.position for a in attempts) == list(range(9))
    assert len({(a.index, a.modality, a.seed, a.mask_seed) for a in attempts}) == 1


def test_a_set_of_one_has_no_other_row() -> None:
    assert choose(0, 17, {"image": 1}, 0.0, attempt=3).position == 0


@given(st.integers(0, 2**63), st.integers(0, 2**48), st.integers(1, 10**8), st.integers(0, 20))
def test_position_and_seeds_are_in_range(seed: int, index: int, size: int, attempt: int) -> None:
    choice = choose(seed, index, {"image": size, "video": size}, 0.5, attempt)
    assert 0 <= choice.position < size
    assert 0 <= choice.seed < 2**64
    assert 0 <= choice.mask_seed < 2**64
    assert choice.seed != choice.mask_seed
