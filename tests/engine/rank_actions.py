"""What the ranks of a real process group do for `test_engine_ranks`; one process each."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from arlow_trainer.config.errors import ArlowError, StoreError
from arlow_trainer.engine import Ranks


def play(ranks: Ranks) -> dict[str, Any]:
    """Plays every scene, and returns the outcome of each."""
    scenes: dict[str, Callable[[Ranks], object]] = {
        "who": lambda ranks: (ranks.rank, ranks.size, ranks.first),
        "gather": lambda ranks: ranks.gather(f"rank {ranks.rank}"),
        "agree": lambda ranks: ranks.agree(lambda: 10 * ranks.rank),
        "one fails": lambda ranks: ranks.agree(lambda: _refuse(ranks, 1)),
        "both fail": lambda ranks: ranks.agree(lambda: _refuse(ranks, 0, 1)),
        "one reports another": lambda ranks: ranks.agree(lambda: _report(ranks, 1)),
        "key-value store": lambda ranks: _exchange(ranks),
        "a bug": lambda ranks: ranks.agree(lambda: _divide(ranks, 1)),
        "from first": lambda ranks: ranks.from_first(lambda: ("value", ranks.rank)),
        "first fails": lambda ranks: ranks.from_first(lambda: _refuse(ranks, 0)),
        "any": lambda ranks: ranks.any(ranks.rank == 1, False, True),
        "spread": lambda ranks: ranks.spread(1.5 + 2.0 * ranks.rank),
        "wait": lambda ranks: ranks.wait(),
    }
    return {name: _outcome(scene, ranks) for name, scene in scenes.items()}


def _outcome(scene: Callable[[Ranks], object], ranks: Ranks) -> Any:
    try:
        return scene(ranks)
    except ArlowError as error:
        return (type(error).__name__, str(error), bool(getattr(error, "second_hand", False)))
    except RuntimeError as error:
        return ("RuntimeError", str(error), "".join(traceback.format_exception(error)))


def _refuse(ranks: Ranks, *failing: int) -> str:
    if ranks.rank in failing:
        raise StoreError(f"rank {ranks.rank}: the store is away")
    return "fine"


class SecondHand(StoreError):
    second_hand = True


def _report(ranks: Ranks, failing: int) -> str:
    if ranks.rank != failing:
        raise SecondHand("another rank failed")
    return _refuse(ranks, failing)


def _exchange(ranks: Ranks) -> tuple[bool, str, str, bool]:
    before = ranks.has("from 1")
    ranks.wait()
    if ranks.rank == 1:
        ranks.post("from 1", "the disk is full")
        ranks.post("mark")
    ranks.wait()
    assert ranks.has("from 1")
    assert ranks.has("mark")
    found = ranks.get("from 1"), ranks.get("mark")
    ranks.wait()
    if ranks.first:
        ranks.delete("mark")
        ranks.delete("never posted")
    ranks.wait()
    return before, *found, ranks.has("mark")


def _divide(ranks: Ranks, failing: int) -> float:
    return 1 / (ranks.rank - failing)
