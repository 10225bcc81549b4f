"""Deletes the checkpoints that retention lets go and what dead processes left unfinished."""

from __future__ import annotations

from arlow_trainer.checkpoint.layout import checkpoint_name, manifest_key
from arlow_trainer.checkpoint.reader import list_checkpoints
from arlow_trainer.checkpoint.retention import plan_leftovers, plan_retention
from arlow_trainer.checkpoint.store import Store


def prune(store: Store, keep_last: int, keep_every: int | None, committed: int) -> list[int]:
    """Deletes what is superseded by the checkpoint that was just committed; returns the steps.

    Called by rank 0, which holds the run's lease, after the commit of step `committed`. Damaged
    checkpoints are neither counted nor deleted: they may hold what somebody wants to rescue.
    """
    found = list_checkpoints(store)
    valid = [info.step for info in found if info.valid]
    unfinished = [info.step for info in found if info.unfinished]
    gone = plan_retention(valid, keep_last, keep_every, verified=committed)
    gone += plan_leftovers(unfinished, committed)
    for step in gone:
        delete_checkpoint(store, step)
    return sorted(gone)


def delete_checkpoint(store: Store, step: int) -> None:
    """Deletes a checkpoint, its manifest first: one half deleted does not exist."""
    store.delete(manifest_key(step))
    store.delete_tree(checkpoint_name(step))
