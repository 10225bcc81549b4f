"""Deletes the checkpoints that retention lets go and what dead processes left unfinished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from arlow_trainer.checkpoint.layout import checkpoint_name, manifest_key
from arlow_trainer.checkpoint.reader import Problem, list_checkpoints, verify
from arlow_trainer.checkpoint.retention import plan_leftovers, plan_retention
from arlow_trainer.storage.store import Store


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
    hold what somebody wants to rescue. Raises StoreError.
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
