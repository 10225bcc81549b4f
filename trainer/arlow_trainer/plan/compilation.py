"""On which devices the blocks are compiled: the one rule of the plan and of the run."""

from __future__ import annotations

from arlow_trainer.config import Compile

_MOST_WORKERS = 4

COMPILED_FROM = (8, 0)
"""Compute capability from which on blocks are compiled by default: Ampere's.

Triton, which inductor writes a GPU's kernels in, supports these; Turing (7.5) and Volta (7.0) it
neither tests nor supports any more, though many kernels still compile there.
"""


def compile_workers(cores: float, ranks: int) -> int:
    """Returns the processes that a rank's compiler has, of a node's cores and ranks.

    A block is a dozen kernels.
    """
    return min(_MOST_WORKERS, max(1, int(cores) // ranks))


def plain_because(choice: Compile, capability: tuple[int, int] | None) -> str | None:
    """Returns why a device runs the blocks plain; None where it runs them compiled.

    Args:
        choice: the run's `training.compile`.
        capability: the GPU's compute capability; None for a CPU.
    """
    if choice == "never":
        return "training.compile is never"
    if choice == "always":
        return None
    if capability is None:
        return "a CPU"
    if capability < COMPILED_FROM:
        return f"compute capability {capability[0]}.{capability[1]}, which Triton does not support"
    return None
