"""What a run opens before its first step: its URL, its newest checkpoint, its data."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from arlow_trainer.checkpoint.contents import content_problems
from arlow_trainer.checkpoint.layout import checkpoint_name
from arlow_trainer.checkpoint.reader import CheckpointInfo, newest_valid
from arlow_trainer.checkpoint.retention import delete_checkpoint, judge_unfinished
from arlow_trainer.config import (
    ArlowPretrain,
    DataSection,
    Modality,
    Precision,
    TrainingSection,
)
from arlow_trainer.config.errors import DataError
from arlow_trainer.data import Source, fingerprint, open_sources
from arlow_trainer.engine import Ranks
from arlow_trainer.engine.ahead import CompileAhead, Job
from arlow_trainer.plan.micro_batches import Sizes
from arlow_trainer.run.early_check import EarlyCheck
from arlow_trainer.run.lease import RELEASE_TIMEOUT_S, Lease, holder_name
from arlow_trainer.run.owner import claim, owner_of
from arlow_trainer.run.signals import StopSignal
from arlow_trainer.storage.process_log import compiler_log_name
from arlow_trainer.storage.store import Store
from arlow_trainer.telemetry import Telemetry

_PREPARED, _NOT_PREPARED = "data prepared", "data not prepared"
_POLL_S = 0.2


def find_newest(
    store: Store, telemetry: Telemetry, stop: StopSignal, early: EarlyCheck | None
) -> CheckpointInfo | None:
    """Finds the newest valid checkpoint, reading all of it, unless that was done `early`.

    Warns of what is passed over. Raises Interrupted when asked to stop, and StoreError where there
    are checkpoints and none is intact, or a newer folder that may be one, half restored.
    """
    with stop.interruptible():
        newest = newest_valid(
            store,
            on_skip=_warn_passed_over(telemetry),
            contents=content_problems,
            check=None if early is None else early.verify,
        )
        for step in judge_unfinished(store, newest.step if newest else None).kept:
            telemetry.warning(
                f"{store.url}/{checkpoint_name(step)} has no manifest and is left alone: remove it "
                "if nothing in it is needed"
            )
        return newest


def remove_killed_saves(
    store: Store, newest: CheckpointInfo | None, telemetry: Telemetry, stop: StopSignal
) -> None:
    """Deletes what killed saves of this run left, newer than its newest valid checkpoint.

    A full disk has to get its space back. Raises StoreError as `find_newest` does, and Interrupted
    when asked to stop: one that is half deleted is marked, and the next start deletes the rest.
    """
    with stop.obeyed():
        for step in judge_unfinished(store, newest.step if newest else None).removed:
            stop.check()
            delete_checkpoint(store, step)
            telemetry.warning(
                f"{store.url}/{checkpoint_name(step)} is deleted: it was left by a save that was "
                "cut"
            )


def open_data(data: DataSection, ranks: Ranks, stop: StopSignal) -> dict[Modality, Source] | None:
    """Opens the data on rank 0 first, so that each set is prepared once; None where that failed.

    A large set takes hours to prepare, longer than a collective may wait, so the other ranks poll a
    key. Raises what `open_sources` does, and Interrupted when asked to stop.
    """
    with stop.interruptible():
        if not ranks.first:
            while not ranks.has(_PREPARED):
                if ranks.has(_NOT_PREPARED):
                    return None
                time.sleep(_POLL_S)
            return open_sources(data)
        note = _NOT_PREPARED
        try:
            sources = open_sources(data)
            note = _PREPARED
            return sources
        finally:
            ranks.post(note)


def check_same_sets(sizes: Sequence[dict[str, int]]) -> None:
    """Refuses sets that change while they are opened: the ranks would deal different samples.

    Raises DataError.
    """
    for rank, found in enumerate(sizes):
        if found != sizes[0]:
            raise DataError(
                f"rank {rank} finds {found} samples where rank 0 finds {sizes[0]}: the data is "
                "being changed, or differs between ranks; start again when it no longer changes"
            )


def fingerprints_of(
    sources: Mapping[Modality, Source], stop: StopSignal
) -> dict[str, dict[str, str]]:
    """Returns what tells whether the sets change until a resume, by modality.

    Raises Interrupted when asked to stop.
    """
    with stop.interruptible():
        return {modality: fingerprint(source.entries()) for modality, source in sources.items()}


def compile_ahead(
    training: TrainingSection,
    precision: Precision,
    sizes: Mapping[Modality, Sizes],
    ranks: Ranks,
    logs: Path,
) -> CompileAhead:
    """Returns what compiles a rank's blocks beside its start, once it is entered."""
    # A GPU's code names the GPU, so that each rank has its own; ranks on CPUs share theirs.
    own = ranks.first_here or ranks.device.type == "cuda"
    return CompileAhead(
        Job.of(training, precision, ranks.device, sizes) if own else None,
        logs / compiler_log_name(ranks.rank),
    )


def wait_for_blocks(
    ahead: CompileAhead, telemetry: Telemetry, ranks: Ranks, stop: StopSignal
) -> bool:
    """Waits until the blocks of all ranks are compiled; returns whether there was any wait.

    Raises Interrupted when asked to stop.
    """
    (waits,) = ranks.any(ahead.running)
    if waits:
        telemetry.phase("loading", "waiting for the blocks to be compiled")
        ranks.agree(stop.interruptible()(ahead.wait))
    return waits


def stop_if_asked(ranks: Ranks, stop: StopSignal) -> None:
    """Ends a run that was asked to stop while it was still loading; nothing is to be saved."""
    if ranks.any(stop.raised)[0]:
        stop.request()
        stop.check()


def acquire_run(store: Store, run: ArlowPretrain, adopt: bool, stop: StopSignal) -> Lease:
    """Checks that the run's URL can be written, and takes its lease so that no other run does.

    Raises StoreError, CredentialsError, LeaseError where another live run holds it, Interrupted
    when asked to stop, or ConfigError where the folder is another run's and `adopt` does not say to
    take it over.
    """
    with stop.obeyed():
        store.check_writable()
        stop.check()
        holder = holder_name(run.metadata.name, os.environ)
        # A run that lost its lease must not overwrite the next one's saves, pictures and status.
        lease = Lease.acquire(store, holder, on_lost=store.forbid_writes, check=stop.check)
        try:
            stop.check()
            claim(store, owner_of(run), adopt)
        except BaseException:
            lease.release(stop.grace.within(RELEASE_TIMEOUT_S))
            raise
    return lease


def _warn_passed_over(telemetry: Telemetry) -> Callable[[CheckpointInfo, str], None]:
    return lambda info, reason: telemetry.warning(f"passing over {info.url}: {reason}")
