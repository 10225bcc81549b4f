"""Which checkpoints may go, and their deletion: superseded ones, and ones never committed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from arlow_trainer.checkpoint.layout import checkpoint_name, manifest_key
from arlow_trainer.checkpoint.reader import Problem, list_checkpoints, verify
from arlow_trainer.storage.store import Store


def plan_retention(
    steps: Iterable[int],
    keep_last: int,
    keep_every: int | None = None,
    verified: int | None = None,
) -> list[int]:
    """Steps of valid checkpoints to delete, in ascending order.

    Kept are the `keep_last` newest, every one whose step is a multiple of `keep_every`, and the
    newest one up to and including `verified`, the step whose content was last known to be intact:
    newer ones may turn out to be damaged. At least one is always kept.
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


@dataclass(frozen=True)
class Pruned:
    """What `prune` did: the steps it deleted, and what did not read back as it was written."""

    deleted: Sequence[int]
    damaged: Mapping[int, Sequence[Problem]]


def prune(store: Store, keep_last: int, keep_every: int | None, committed: int) -> Pruned:
    """Deletes what is superseded by the checkpoint that was just committed.

    Called by rank 0, which holds the run's lease, after the commit of step `committed`. Before any
    checkpoint goes, every byte of the committed one is read back, and of the ones before it until
    one is intact: that one stays. Damaged checkpoints are neither counted nor deleted: they may
    hold what somebody wants to recover. Raises StoreError.
    """
    found = list_checkpoints(store)
    valid = [info.step for info in found if info.valid]
    gone = plan_leftovers([info.step for info in found if info.unfinished], committed)
    damaged: dict[int, list[Problem]] = {}
    if plan_retention(valid, keep_last, keep_every):
        verified = _newest_verified(store, [step for step in valid if step <= committed], damaged)
        if verified is not None:
            trusted = [step for step in valid if step not in damaged]
            gone += plan_retention(trusted, keep_last, keep_every, verified)
    for step in gone:
        delete_checkpoint(store, step)
    return Pruned(sorted(gone), damaged)


def remove_unfinished(store: Store) -> list[int]:
    """Deletes the checkpoints that were never committed; returns their steps.

    Called by rank 0 when it has just taken the run's lease: nobody is writing them any more, and a
    full disk has to get its space back. Raises StoreError.
    """
    steps = [info.step for info in list_checkpoints(store) if info.unfinished]
    for step in steps:
        delete_checkpoint(store, step)
    return steps


def delete_checkpoint(store: Store, step: int) -> None:
    """Deletes a checkpoint, its manifest first: one half deleted does not exist."""
    store.delete(manifest_key(step))
    store.delete_tree(checkpoint_name(step))


def _newest_verified(
    store: Store, steps: Sequence[int], damaged: dict[int, list[Problem]]
) -> int | None:
    for step in reversed(steps):
        problems = verify(store, step)
        if not problems:
            return step
        damaged[step] = problems
    return None
