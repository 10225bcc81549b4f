"""Ranks agree on outcomes: a real gloo group of two processes."""

from __future__ import annotations

from typing import Any

import pytest
from rank_actions import play

from support.two_ranks import on_two_ranks

Answers = list[dict[str, Any]]

AWAY = "the store is away"
# The name, the message, and whether it is another rank's.
BY_RANK_0 = [("StoreError", f"rank 0: {AWAY}", False), ("StoreError", f"rank 0: {AWAY}", True)]
BY_RANK_1 = [("StoreError", f"rank 1: {AWAY}", True), ("StoreError", f"rank 1: {AWAY}", False)]


@pytest.fixture(scope="module")
def answers() -> Answers:
    return on_two_ranks(play)


@pytest.mark.parametrize(
    ("scene", "expected"),
    [
        ("who", [(0, 2, True), (1, 2, False)]),
        ("gather", [["rank 0", "rank 1"]] * 2),
        ("agree", [0, 10]),
        ("one fails", BY_RANK_1),
        ("both fail", BY_RANK_0),
        ("one reports another", BY_RANK_1),
        ("key-value store", [(False, "the disk is full", "", False)] * 2),
        ("from first", [("value", 0)] * 2),
        ("first fails", BY_RANK_0),
        ("any", [[True, False, True]] * 2),
        ("spread", [2.0, 2.0]),
        ("wait", [None, None]),
    ],
)
def test_scene(answers: Answers, scene: str, expected: list[object]) -> None:
    assert [answer[scene] for answer in answers] == expected


def test_a_bug_is_raised_everywhere_and_keeps_its_traceback_where_it_happened(
    answers: Answers,
) -> None:
    other, own = (answer["a bug"] for answer in answers)
    assert other[:2] == own[:2] == ("RuntimeError", "ZeroDivisionError: division by zero")
    assert "in _divide" in own[2]
    assert "in _divide" not in other[2]
