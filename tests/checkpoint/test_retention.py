"""Which checkpoints retention lets go: the rules as properties, and a table of examples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arlow_trainer.checkpoint.retention import plan_leftovers, plan_retention

steps = st.lists(st.integers(0, 1000), max_size=30)
keep_last = st.integers(1, 10)
keep_every = st.none() | st.integers(1, 100)
verified = st.none() | st.integers(0, 1000)


@given(steps, keep_last, keep_every, verified)
def test_the_rules_hold(
    present: list[int], last: int, every: int | None, intact: int | None
) -> None:
    gone = plan_retention(present, last, every, intact)
    left = set(present) - set(gone)
    assert gone == sorted(set(gone))
    assert set(gone) <= set(present)
    assert left or not present
    assert set(sorted(set(present))[-last:]) <= left
    if every is not None:
        assert not [step for step in gone if step % every == 0]
    if intact in present:
        assert intact in left


@given(steps, keep_last, keep_every, verified)
def test_nothing_is_kept_without_a_rule(
    present: list[int], last: int, every: int | None, intact: int | None
) -> None:
    gone = plan_retention(present, last, every, intact)
    left = sorted(set(present) - set(gone))
    rest = [step for step in left[:-last] if every is None or step % every]
    assert len(rest) <= (intact is not None)


@given(steps, keep_last, keep_every, verified)
def test_a_second_pass_finds_nothing_more(
    present: list[int], last: int, every: int | None, intact: int | None
) -> None:
    left = set(present) - set(plan_retention(present, last, every, intact))
    assert plan_retention(left, last, every, intact) == []


@pytest.mark.parametrize(
    ("present", "last", "every", "intact", "gone"),
    [
        ([], 3, None, None, []),
        ([10], 1, None, None, []),
        ([10, 20, 30, 40], 2, None, None, [10, 20]),
        ([40, 10, 30, 20], 1, 20, None, [10, 30]),
        ([10, 20, 30], 1, None, 20, [10]),
        # Resumed from 20 because 40 is damaged: what is intact stays until something newer is.
        ([10, 20, 25, 40], 1, None, 25, [10, 20]),
        ([10, 20, 40], 1, None, 25, [10]),
        ([0, 5, 10], 1, 10, None, [5]),
    ],
)
def test_examples(
    present: list[int], last: int, every: int | None, intact: int | None, gone: list[int]
) -> None:
    assert plan_retention(present, last, every, intact) == gone


@pytest.mark.parametrize(("last", "every"), [(0, None), (-1, None), (1, 0)])
def test_senseless_rules_are_refused(last: int, every: int | None) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        plan_retention([1], last, every)


@given(steps, st.integers(0, 1000))
def test_leftovers_lie_below_what_was_committed(unfinished: list[int], committed: int) -> None:
    gone = plan_leftovers(unfinished, committed)
    assert gone == sorted(set(gone))
    assert set(gone) == {step for step in unfinished if step < committed}
