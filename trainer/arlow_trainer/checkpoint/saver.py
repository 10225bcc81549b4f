"""Saving and restoring a run: between the engine's tensors and the checkpoint's files."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from arlow_trainer.checkpoint.copies import Copy, CopyBuffer
from arlow_trainer.checkpoint.export import (
    CARD,
    DECODER,
    TOWER,
    WEIGHTS,
    card_file,
    decoder_config,
    fixed_files,
    weights_file,
)
from arlow_trainer.checkpoint.layout import checkpoint_name
from arlow_trainer.checkpoint.reader import download
from arlow_trainer.checkpoint.training_state import TRAINING_STATE, Progress, TrainingState
from arlow_trainer.checkpoint.writer import (
    ABANDON_S,
    BackgroundWriter,
    FileWriter,
    OutOfTime,
    SaveEvent,
)
from arlow_trainer.config import ArlowPretrain
from arlow_trainer.config.errors import ArlowError
from arlow_trainer.engine import (
    OptimizerShard,
    Ranks,
    RestoredShard,
    before_updates,
    install_shard,
    loss_scaler_state,
    optimizer_shard,
    read_shards,
    restore_loss_scaler,
    shard_name,
)
from arlow_trainer.storage.grace import Grace
from arlow_trainer.storage.store import Store

MAX_FAILED_SAVES = 3


class CheckpointSaver(AbstractContextManager["CheckpointSaver"]):
    """Copies a run's state out of the engine and hands it to the background writer."""

    def __init__(
        self,
        store: Store,
        run: ArlowPretrain,
        engine: Any,
        ranks: Ranks,
        *,
        attempt: str,
        start: TrainingState,
        on_event: Callable[[SaveEvent, float], None],
        grace: Grace,
    ) -> None:
        """Prepares the saves of one attempt of a run; call on every rank.

        Args:
            store: the run's store.
            run: the run.
            engine: the DeepSpeed engine around its autoencoder.
            ranks: this process among the ranks.
            attempt: 32 hex digits, the same on all ranks and new at every start.
            start: the run's state before its first step (`TrainingState.start`).
            on_event: called on the writer's thread at every save's end, with the seconds that
                training stood still for it.
            grace: bounds every wait once the run was asked to stop.
        """
        self._run, self._engine, self._ranks, self._start = run, engine, ranks, start
        self._stall = self._last_s = 0.0
        self._on_event, self._grace = on_event, grace
        self._writer = BackgroundWriter(
            store,
            ranks.rank,
            ranks.size,
            attempt,
            self._on_saved,
            channel=ranks,
        )
        module = engine.module
        self._failed = 0
        self._submitted: int | None = None
        self._committed: int | None = None
        # Its memory is there when the first save is due.
        self._buffer = CopyBuffer(self._tensors(), engine.device)
        self._copy: Copy | None = None
        self._hook = before_updates(engine, self._before_update)
        self._parameters = sum(p.numel() for p in module.tower.parameters())
        self._fixed: dict[str, bytes] = {}
        if ranks.first:
            self._fixed = fixed_files(module.tower, run.spec.training.model)
            self._fixed[f"{DECODER}/config.json"] = decoder_config(run)

    @property
    def copy_bytes(self) -> int:
        """The host memory that this rank's saves are copied into, from the start to the end."""
        return self._buffer.nbytes

    def save(self, progress: Progress) -> None:
        """Saves the run as it is now; returns when that has begun.

        It is copied while the next step runs forward and backward; the update waits for the copy.
        Waits first for the previous save; a step that is committed already is not saved again. A
        failed save was reported to `on_event` and the run continues: `MAX_FAILED_SAVES` of them in
        a row raise the last one's ArlowError. In a stop that leaves no time OutOfTime is raised
        instead.
        """
        start = time.perf_counter()
        self._wait_for_previous()
        if progress.step == self._committed:
            return
        self._submitted = progress.step
        state = self._start.after(
            progress, self._run.spec.global_batch_size, loss_scaler_state(self._engine)
        )
        shard = optimizer_shard(self._engine)
        self._copy = copy = self._buffer.copy(self._tensors(shard))
        files: dict[str, FileWriter | bytes] = dict(self._fixed)
        own = {name: copy.tensors[name] for name in shard.tensors}
        files[shard_name(self._ranks.rank, self._ranks.size)] = copy.then(
            replace(shard, tensors=own).save
        )
        if self._ranks.first:
            for part in (TOWER, DECODER):
                weights = {
                    name.removeprefix(f"{part}/"): tensor
                    for name, tensor in copy.tensors.items()
                    if name.startswith(f"{part}/")
                }
                files[f"{part}/{WEIGHTS}"] = copy.then(weights_file(weights))
            files[TRAINING_STATE] = state.to_bytes()
            files[CARD] = card_file(self._run, state, self._parameters)
        self._stall = time.perf_counter() - start
        self._writer.submit(state.step, files)

    def _tensors(self, shard: OptimizerShard | None = None) -> dict[str, Tensor]:
        """Returns what this rank saves: the shard, on rank 0 also `<part>/<parameter>`."""
        tensors = dict((shard or optimizer_shard(self._engine)).tensors)
        if self._ranks.first:
            module = self._engine.module
            for part, of_part in ((TOWER, module.tower), (DECODER, module.decoder)):
                weights = of_part.state_dict()
                tensors |= {f"{part}/{name}": value for name, value in weights.items()}
        return tensors

    def _before_update(self) -> None:
        copy, self._copy = self._copy, None
        if copy is not None:
            start = time.perf_counter()
            copy.wait()
            self._stall += time.perf_counter() - start

    def finish(self, progress: Progress | None) -> None:
        """Saves the run's last state, unless it is None, and returns when all is committed.

        Raises on every rank the failure of a save, and OutOfTime where the grace period of a stop
        is too short: none begins that took longer last time.
        """
        if progress is not None:
            self._wait_for_previous()
            left = self._grace.left_to_save()
            if self._ranks.any(self._last_s > left)[0]:
                raise OutOfTime(
                    f"the last save took {self._last_s:.0f} s, and {left:.0f} s were left to save"
                )
            self.save(progress)
        self._ranks.agree(self._wait)

    def _wait(self) -> None:
        self._writer.wait(self._grace.left_to_save)

    def _on_saved(self, event: SaveEvent) -> None:
        if event.error is None:
            self._last_s = event.duration_s
        self._on_event(event, self._stall)

    def _wait_for_previous(self) -> None:
        """Waits for the previous save; raises only the last of several failures, on every rank."""
        try:
            self._ranks.agree(self._wait)
            # Every rank comes to know it here: no rank skips a save that another repeats.
            self._committed, self._failed = self._submitted, 0
        except OutOfTime:
            raise
        except ArlowError:
            self._failed += 1
            if self._failed >= MAX_FAILED_SAVES:
                raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._hook.remove()
        self._writer.close(error is not None, self._grace.within(ABANDON_S))


def read_state(store: Store, step: int) -> TrainingState:
    """Reads the training state of a checkpoint. Raises StoreError."""
    key = f"{checkpoint_name(step)}/{TRAINING_STATE}"
    return TrainingState.from_bytes(store.read_bytes(key), store.url_of(key))


def restore(
    store: Store,
    state: TrainingState,
    engine: Any,
    ranks: Ranks,
    reading: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Restores a checkpoint, saved by any number of ranks, into the engine; call on every rank.

    It is one that `newest_valid` has read. `reading` is entered while files are read: what it
    raises on any rank all ranks raise. Raises StoreError when the checkpoint is damaged on its way.
    """

    def read() -> RestoredShard:
        # The same number of ranks: each has its own slices in its own file.
        mine = [ranks.rank] if state.ranks == ranks.size else range(state.ranks)
        names = [shard_name(rank, state.ranks) for rank in mine]
        with reading():
            return read_shards(engine, _downloaded(store, state.step, names))

    install_shard(engine, ranks.agree(read))
    restore_loss_scaler(engine, state.loss_scaler)


def _downloaded(store: Store, step: int, names: Sequence[str]) -> Iterator[Path]:
    """Yields files of a checkpoint: a local store's as they are, others downloaded and checked.

    Those are deleted one before the next: they are large.
    """
    folder_here = store.local_path
    for name in names:
        if folder_here is not None:
            yield folder_here / checkpoint_name(step) / name
            continue
        with tempfile.TemporaryDirectory() as folder:
            yield from download(store, step, [name], Path(folder))
