"""Reconstructions of fixed samples while a run trains, drawn and uploaded beside it."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Mapping
from types import TracebackType

import torch

from arlow_trainer.config import ArlowPretrain
from arlow_trainer.config.errors import ArlowError
from arlow_trainer.data import Modality, Source
from arlow_trainer.mae import MaskedAutoencoder, Reconstruction
from arlow_trainer.pictures.drawing import draw, png
from arlow_trainer.pictures.reconstruction import Pixels, notes, panels, reconstruct
from arlow_trainer.pictures.samples import first_sample
from arlow_trainer.pictures.stored import picture_key
from arlow_trainer.storage.store import Store

MASK_SEED = 0
MAX_WAITING = 4
CLOSE_TIMEOUT_S = 30.0
"""How long the end of a run waits for a store that does not answer."""

log = logging.getLogger(__name__)


class Painter:
    """Keeps pictures of how a run fills in the first sample of each of its sets.

    For rank 0. The samples are seen whole (centre view) with the same mask every time. A step waits
    for the forward pass alone: pixels are drawn, encoded and uploaded on a thread. A picture that
    fails is logged and never ends the run; those that come while `MAX_WAITING` wait for a slow
    store are left out.
    """

    def __init__(
        self, run: ArlowPretrain, store: Store, sources: Mapping[Modality, Source]
    ) -> None:
        self._run, self._store = run, store
        self._samples: dict[Modality, tuple[str, Pixels]] = {}
        for modality, source in sources.items():
            try:
                self._samples[modality] = first_sample(source, modality, run.spec.training.data)
            except ArlowError as error:
                log.warning("no pictures of %ss: %s", modality, error)
        self._waiting: queue.SimpleQueue[tuple[int, Modality, Reconstruction] | None]
        self._waiting = queue.SimpleQueue()
        # A daemon: a process that is ending for another reason must not wait for a store.
        self._thread = threading.Thread(target=self._work, name="painter", daemon=True)
        self._thread.start()

    def __enter__(self) -> Painter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def due(self, step: int, total_steps: int) -> bool:
        """Whether pictures are wanted after a step: at the run's interval and at its end."""
        every = self._run.spec.training.pictures_every_steps
        return every is not None and (step % every == 0 or step == total_steps)

    def paint(self, module: MaskedAutoencoder, step: int) -> None:
        """Lets the module fill in the samples, with its weights as they are after `step`."""
        mae = self._run.spec.training.mae
        for modality, (_, frames) in self._samples.items():
            if self._waiting.qsize() >= MAX_WAITING:
                log.warning("step %d: the store is slow, its %s is not kept", step, modality)
                continue
            try:
                made = reconstruct(module, frames, mae, MASK_SEED)
            except torch.OutOfMemoryError:
                log.warning("step %d: no memory left to reconstruct the %s", step, modality)
            else:
                self._waiting.put((step, modality, made))

    def close(self) -> None:
        """Returns when all pictures are in the store, at the latest after CLOSE_TIMEOUT_S."""
        self._waiting.put(None)
        self._thread.join(CLOSE_TIMEOUT_S)
        # The None that is still there stands for the picture that is being uploaded.
        given_up = self._waiting.qsize()
        if given_up:
            log.warning(
                "the last pictures (%d) are not kept: the store has not answered for %.0f s",
                given_up,
                CLOSE_TIMEOUT_S,
            )

    def _work(self) -> None:
        while (work := self._waiting.get()) is not None:
            step, modality, made = work
            try:
                self._store.write_bytes(picture_key(step, modality), self._drawn(*work))
            except Exception as error:
                log.warning("the %s of step %d is not kept: %s", modality, step, error)
            del work, made

    def _drawn(self, step: int, modality: Modality, made: Reconstruction) -> bytes:
        name, frames = self._samples[modality]
        training = self._run.spec.training
        pixels = panels(made, len(frames), training)
        told = [name, *notes(pixels.score, training.mae.normalized_pixel_loss)]
        drawn = draw(pixels, f"{self._run.metadata.name}, step {step:,}", told)
        return png(drawn, "\n".join(told))
