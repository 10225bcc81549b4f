"""On which devices the blocks are compiled, as a table."""

from __future__ import annotations

import pytest

from arlow_trainer.config import Compile
from arlow_trainer.plan.compilation import compile_workers, plain_because

CPU = None
TABLE = {
    # Volta, Turing, A100, Ada, Hopper, Blackwell
    "auto": {CPU: False, (7, 0): False, (7, 5): False, (8, 0): True, (8, 9): True, (10, 0): True},
    "always": {CPU: True, (7, 0): True, (7, 5): True, (8, 0): True, (9, 0): True},
    "never": {CPU: False, (7, 5): False, (8, 0): False, (9, 0): False},
}


@pytest.mark.parametrize(
    ("choice", "capability", "compiled"),
    [(choice, *row) for choice, rows in TABLE.items() for row in rows.items()],
)
def test_blocks_are_compiled_where_triton_is_at_home(
    choice: Compile, capability: tuple[int, int] | None, compiled: bool
) -> None:
    reason = plain_because(choice, capability)
    assert (reason is None) == compiled
    if choice == "auto" and capability == (7, 5):
        assert reason == "compute capability 7.5, which Triton does not support"


@pytest.mark.parametrize(
    ("cores", "ranks", "workers"), [(0.5, 1, 1), (2, 1, 2), (2, 8, 1), (16, 8, 2), (128, 8, 4)]
)
def test_ranks_share_the_cores_that_compile(cores: float, ranks: int, workers: int) -> None:
    assert compile_workers(cores, ranks) == workers
