"""The hash and the keyed shuffle."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arlow_trainer.data.order import hash64, permute, uniform


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 9, 31, 64, 100, 257, 1000, 4096, 4097])
@pytest.mark.parametrize("key", [0, 1, 2**64 - 1])
def test_is_a_bijection(size: int, key: int) -> None:
    assert sorted(permute(i, size, key) for i in range(size)) == list(range(size))


@given(st.integers(1, 10**12), st.integers(0, 2**64 - 1), st.data())
def test_stays_inside_any_size(size: int, key: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    other = data.draw(st.integers(0, size - 1))
    assert 0 <= permute(index, size, key) < size
    assert (permute(index, size, key) == permute(other, size, key)) == (index == other)


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6, 10, 37, 100])
def test_every_index_lands_everywhere_equally_often(size: int) -> None:
    keys = 400 * size
    for index in (0, size - 1):
        counts = Counter(permute(index, size, hash64(key)) for key in range(keys))
        chi_square = sum((counts[p] - 400) ** 2 / 400 for p in range(size))
        freedom = size - 1
        assert chi_square < freedom + 4 * (2 * freedom) ** 0.5 + 4


def test_neighbours_are_scattered() -> None:
    size = 100_000
    steps = [abs(permute(i + 1, size, 7) - permute(i, size, 7)) for i in range(3000)]
    assert sum(steps) / len(steps) == pytest.approx(size / 3, rel=0.05)


def test_keys_differ() -> None:
    orders = {tuple(permute(i, 50, key) for i in range(50)) for key in range(200)}
    assert len(orders) == 200


def test_index_outside_is_refused() -> None:
    with pytest.raises(ValueError, match=r"index 5 is not in \[0, 5\)"):
        permute(5, 5, 0)


def test_hash_never_changes() -> None:
    assert hash64(0) == 0xE220A8397B1DCDAF  # first output of SplitMix64 seeded with 0
    assert [permute(i, 10, 1) for i in range(10)] == [2, 5, 6, 3, 4, 1, 9, 8, 0, 7]


def test_uniform_is_uniform() -> None:
    draws = sorted(uniform(3, i) for i in range(10_000))
    assert max(abs(d - i / 10_000) for i, d in enumerate(draws)) < 0.02
    assert draws[0] >= 0
    assert draws[-1] < 1
