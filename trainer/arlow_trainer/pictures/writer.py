"""Reconstructions of fixed samples during training, drawn and uploaded in the background."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import torch

from arlow_trainer.config import ArlowPretrain, Modality
from arlow_trainer.config.errors import ArlowError
from arlow_trainer.data import Source
from arlow_trainer.mae import MaskedAutoencoder, Reconstruction
from arlow_trainer.pictures.drawing import draw, png
from arlow_trainer.pictures.reconstruction import Pixels, notes, panels, reconstruct
from arlow_trainer.pictures.samples import first_sample
from arlow_trainer.pictures.stored import picture_key
from arlow_trainer.storage.outbox import CLOSE_TIMEOUT_S, Closeable, Outbox
from arlow_trainer.storage.store import Store

MASK_SEED = 0
MAX_PENDING = 5

log = logging.getLogger(__name__)


class PictureWriter(Closeable):
    """Reconstructs the first sample of each of a run's sets and stores the drawn pictures.

    For rank 0. The samples are shown whole (centre view) with the same mask every time. A step
    waits for the forward pass alone: pixels are drawn, encoded and uploaded on a thread. A picture
    that fails is logged and never ends the run; while `MAX_PENDING` are not in the store yet, new
    ones are left out.
    """

    def __init__(
        self,
        run: ArlowPretrain,
        store: Store,
        sources: Mapping[Modality, Source],
        on_stored: Callable[[int, str, str], None] | None = None,
    ) -> None:
        """`on_stored` is told the step, the name and the key of each stored picture."""
        self._run, self._store, self._on_stored = run, store, on_stored
        self._samples: dict[Modality, tuple[str, Pixels]] = {}
        for modality, source in sources.items():
            try:
                self._samples[modality] = first_sample(source, modality, run.spec.training.data)
            except ArlowError as error:
                log.warning("no pictures of %ss: %s", modality, error)
        # One at a time: each makes room for a new one as soon as it is stored.
        self._outbox: Outbox[tuple[int, Modality, Reconstruction]] = Outbox(
            "pictures", self._write, log.warning, max_items=MAX_PENDING, max_batch=1
        )

    def due(self, step: int, total_steps: int) -> bool:
        """Whether pictures are wanted after a step: at the run's interval and at its end."""
        every = self._run.spec.training.pictures_every_steps
        return every > 0 and (step % every == 0 or step == total_steps)

    def submit(self, module: MaskedAutoencoder, step: int) -> None:
        """Reconstructs the samples with the module's weights, which are those after `step`."""
        mae = self._run.spec.training.mae
        for modality, (_, frames) in self._samples.items():
            if self._outbox.full:
                log.warning("step %d: the store is slow, its %s is left out", step, modality)
                continue
            try:
                made = reconstruct(module, frames, mae, MASK_SEED)
            except torch.OutOfMemoryError:
                log.warning("step %d: no memory left to reconstruct the %s", step, modality)
            else:
                self._outbox.put((step, modality, made))

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Returns when all pictures are in the store, at the latest after `timeout_s` seconds."""
        self._outbox.close(timeout_s)

    def _write(self, batch: list[tuple[int, Modality, Reconstruction]]) -> None:
        for step, modality, made in batch:
            key = picture_key(step, modality)
            try:
                self._store.write_bytes(key, self._drawn(step, modality, made))
            except Exception as error:
                # Not tried again: the next step's picture is worth more than this one's.
                log.warning("the %s of step %d is not stored: %s", modality, step, error)
                continue
            if self._on_stored is not None:
                self._on_stored(step, f"reconstruction/{modality}", key)

    def _drawn(self, step: int, modality: Modality, made: Reconstruction) -> bytes:
        name, frames = self._samples[modality]
        training = self._run.spec.training
        pixels = panels(made, len(frames), training)
        captions = [name, *notes(pixels.score, training.mae.normalized_pixel_loss)]
        drawn = draw(pixels, f"{self._run.metadata.name}, step {step:,}", captions)
        return png(drawn, "\n".join(captions))
