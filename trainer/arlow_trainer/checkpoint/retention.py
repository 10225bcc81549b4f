"""Which checkpoints may go, and their deletion: superseded ones, and ones never committed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from arlow_trainer.checkpoint.layout import (
    MANIFEST,
    SaveMark,
    checkpoint_name,
    manifest_key,
    save_mark_key,
)
from arlow_trainer.checkpoint.reader import Problem, list_checkpoints, name_some, verify
from arlow_trainer.config.errors import StoreError
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


def plan_leftovers(marked: Iterable[int], committed: int) -> list[int]:
    """Steps of unfinished checkpoints that nobody is writing any more, in ascending order.

    `marked` are those whose mark proves that a save or a deletion of them was cut, `committed` the
    step this process group has committed last. Its steps only grow, so whatever any of its ranks is
    writing now lies above; what has no manifest below was left by a process that has died or by a
    save that failed.
    """
    return sorted({step for step in marked if step < committed})


@dataclass(frozen=True)
class Unfinished:
    """What becomes of the folders without a manifest: their steps, in ascending order."""

    removed: Sequence[int]
    """Killed saves of this run."""
    superseded: Sequence[int]
    """Saves or deletions of this run that were cut; `prune` deletes them after the next commit."""
    kept: Sequence[int]
    """Left alone: there is a newer checkpoint, so that they are in nobody's way."""
    refused: Sequence[int]
    """What the run must not go on beside: a checkpoint that is perhaps only half restored."""


def plan_unfinished(unfinished: Mapping[int, bool], newest: int | None) -> Unfinished:
    """Decides about the folders without a manifest that a start of a run finds.

    `unfinished` maps their steps to whether a mark proves them to be this program's own; `newest`
    is the step of the newest valid checkpoint.
    """
    newer = {step for step in unfinished if newest is None or step > newest}
    marked = {step for step, proven in unfinished.items() if proven}
    return Unfinished(
        removed=sorted(newer & marked),
        superseded=sorted(marked - newer),
        kept=sorted(unfinished.keys() - newer - marked),
        refused=sorted(newer - marked),
    )


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
    gone = plan_leftovers([info.step for info in found if info.marked], committed)
    damaged: dict[int, list[Problem]] = {}
    if plan_retention(valid, keep_last, keep_every):
        verified = _newest_verified(store, [step for step in valid if step <= committed], damaged)
        if verified is not None:
            trusted = [step for step in valid if step not in damaged]
            gone += plan_retention(trusted, keep_last, keep_every, verified)
    for step in gone:
        delete_checkpoint(store, step)
    return Pruned(sorted(gone), damaged)


def judge_unfinished(store: Store, newest: int | None) -> Unfinished:
    """Returns what becomes of the folders without a manifest, as `plan_unfinished` decides.

    Called by rank 0, which holds the run's lease: nobody is writing them any more. `newest` is the
    step of the newest valid checkpoint. Raises StoreError where the run must not go on.
    """
    found = {info.step: info.marked for info in list_checkpoints(store) if info.unfinished}
    plan = plan_unfinished(found, newest)
    if plan.refused:
        names = name_some([checkpoint_name(step) for step in plan.refused])
        latest = "no valid checkpoint" if newest is None else f"none after step {newest}"
        raise StoreError(
            f"{store.url}: {names}: no {MANIFEST}, and not a save of this run that was cut. The "
            f"run has {latest} to resume from, and no checkpoint is deleted or written over. If a "
            "backup is being restored, wait until it is complete; else restore their manifests, or "
            "remove their folders, or start another run by metadata.name."
        )
    return plan


def delete_checkpoint(store: Store, step: int) -> None:
    """Deletes a checkpoint: it is marked, its manifest goes first and the mark last.

    One half deleted does not exist, and its mark says that it may be deleted to its end.
    """
    mark = SaveMark(step=step, attempt=None, started=datetime.now(UTC))
    # A full disk must not keep what is to be deleted.
    with suppress(StoreError):
        store.write_bytes(save_mark_key(step), mark.to_bytes())
    store.delete(manifest_key(step))
    store.delete_all(store.list(checkpoint_name(step)).keys() - {save_mark_key(step)})
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
