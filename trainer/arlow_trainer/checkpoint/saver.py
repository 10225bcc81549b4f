"""Saving and restoring a run: between the engine's tensors and the checkpoint's files."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

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
from arlow_trainer.checkpoint.training_state import TRAINING_STATE, TrainingState
from arlow_trainer.checkpoint.writer import BackgroundWriter, FileWriter, SaveEvent
from arlow_trainer.config import ArlowPretrain
from arlow_trainer.config.errors import ArlowError
from arlow_trainer.engine import (
    Ranks,
    RestoredShard,
    capture_optimizer,
    capture_weights,
    install_shard,
    loss_scaler_state,
    read_shards,
    restore_loss_scaler,
    shard_name,
)
from arlow_trainer.storage.store import Store

MAX_FAILED_SAVES = 3


class CheckpointSaver:
    """Copies a run's state out of the engine and hands it to the background writer."""

    def __init__(
        self,
        store: Store,
        run: ArlowPretrain,
        engine: Any,
        ranks: Ranks,
        attempt: str,
        total_steps: int,
        set_sizes: Mapping[str, int],
        precision: str,
        on_event: Callable[[SaveEvent, float], None],
    ) -> None:
        """`attempt` (32 hex digits) is one for all ranks and new at every start; `on_event` hears
        of every save's end, and of the seconds that training stood still for it, on the writer's
        thread."""
        self._run, self._engine, self._ranks = run, engine, ranks
        self._total_steps, self._precision = total_steps, precision
        self._set_sizes = dict(set_sizes)
        self._stall = 0.0
        self._writer = BackgroundWriter(
            store,
            ranks.rank,
            ranks.size,
            attempt,
            lambda event: on_event(event, self._stall),
            channel=ranks,
        )
        module = engine.module
        self._failed = 0
        self._parameters = sum(p.numel() for p in module.tower.parameters())
        self._fixed: dict[str, bytes] = {}
        if ranks.first:
            self._fixed = fixed_files(module.tower, run.spec.training.model)
            self._fixed[f"{DECODER}/config.json"] = decoder_config(run)

    def save(
        self, step: int, loss: float | None, overflows: int, skipped: Mapping[str, str]
    ) -> None:
        """Saves the run after `step` steps; returns when it is copied out of the engine.

        `skipped` gives for each broken file that was skipped so far the reason.

        Waits first for the save before this one. A failed save was told to `on_event`, and the run
        goes on: `MAX_FAILED_SAVES` of them in a row raise the last one's ArlowError.
        """
        start = time.perf_counter()
        self._settle()
        state = self._state(step, loss, overflows, skipped)
        files: dict[str, FileWriter | bytes] = dict(self._fixed)
        shard = capture_optimizer(self._engine)
        files[shard_name(self._ranks.rank, self._ranks.size)] = shard.save
        if self._ranks.first:
            module = self._engine.module
            files[f"{TOWER}/{WEIGHTS}"] = weights_file(capture_weights(module.tower))
            files[f"{DECODER}/{WEIGHTS}"] = weights_file(capture_weights(module.decoder))
            files[TRAINING_STATE] = state.to_bytes()
            files[CARD] = card_file(self._run, state, self._parameters)
        self._stall = time.perf_counter() - start
        self._writer.submit(state.step, files)

    def wait(self) -> None:
        """Returns on every rank when everything is committed; raises the failure of a save."""
        self._ranks.agree(self._writer.wait)

    def _state(
        self, step: int, loss: float | None, overflows: int, skipped: Mapping[str, str]
    ) -> TrainingState:
        return TrainingState(
            step=step,
            next_sample=step * self._run.spec.global_batch_size,
            seed=self._run.spec.training.seed,
            ranks=self._ranks.size,
            total_steps=self._total_steps,
            set_sizes=self._set_sizes,
            precision=self._precision,
            loss=loss,
            loss_scaler=loss_scaler_state(self._engine),
            overflows=overflows,
            skipped_files=dict(skipped),
            run=self._run.model_dump(mode="json", by_alias=True, exclude={"status"}),
        )

    def _settle(self) -> None:
        """Waits for the save before, and forgives its failure for a while, alike on every rank."""
        try:
            self._ranks.agree(self._writer.wait)
            self._failed = 0
        except ArlowError:
            self._failed += 1
            if self._failed >= MAX_FAILED_SAVES:
                raise

    def __enter__(self) -> CheckpointSaver:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close(abandon=error is not None)


def read_state(store: Store, step: int) -> TrainingState:
    """Reads the training state of a checkpoint. Raises StoreError."""
    key = f"{checkpoint_name(step)}/{TRAINING_STATE}"
    return TrainingState.from_bytes(store.read_bytes(key), store.url_of(key))


def restore(store: Store, state: TrainingState, engine: Any, ranks: Ranks) -> None:
    """Restores a checkpoint, saved by any number of ranks, into the engine; call on every rank.

    Raises StoreError when the checkpoint is damaged.
    """

    def read() -> RestoredShard:
        # The same number of ranks: each has its own slices in its own file.
        mine = [ranks.rank] if state.ranks == ranks.size else range(state.ranks)
        names = [shard_name(rank, state.ranks) for rank in mine]
        return read_shards(engine, _fetched(store, state.step, names))

    install_shard(engine, ranks.agree(read))
    restore_loss_scaler(engine, state.loss_scaler)


def _fetched(store: Store, step: int, names: Sequence[str]) -> Iterator[Path]:
    """Downloads files one at a time, each gone when the next is asked for: they are large."""
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            yield from download(store, step, [name], Path(folder))
