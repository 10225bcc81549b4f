"""Which checkpoints may go. Pure: steps in, steps out; `prune` acts on it."""

from __future__ import annotations

from collections.abc import Iterable


def plan_retention(
    steps: Iterable[int],
    keep_last: int,
    keep_every: int | None = None,
    verified: int | None = None,
) -> list[int]:
    """Steps of valid checkpoints to delete, in ascending order.

    Kept are the `keep_last` newest, every one whose step is a multiple of `keep_every`, and the
    newest one up to and including `verified`, the step whose content was last known to be intact:
    the ones above it may yet prove damaged. At least one is always kept.
    """
    if keep_last < 1:
        raise ValueError(f"keep_last is 1 or more, not {keep_last}")
    if keep_every is not None and keep_every < 1:
        raise ValueError(f"keep_every is 1 or more, not {keep_every}")
    present = sorted(set(steps))
    kept = set(present[-keep_last:])
    if keep_every is not None:
        kept.update(step for step in present if step % keep_every == 0)
    if verified is not None:
        kept.update([step for step in present if step <= verified][-1:])
    return [step for step in present if step not in kept]


def plan_leftovers(unfinished: Iterable[int], committed: int) -> list[int]:
    """Steps of unfinished checkpoints that nobody is writing any more, in ascending order.

    `committed` is the step this process group has committed last. Its steps only grow, so whatever
    any of its ranks is writing now lies above; what has no manifest below was left by a process
    that has died or by a save that failed.
    """
    return sorted({step for step in unfinished if step < committed})
