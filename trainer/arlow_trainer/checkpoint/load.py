"""Loads the autoencoder of a checkpoint, tower and decoder, for inference."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from arlow_trainer.checkpoint.contents import check_contents
from arlow_trainer.checkpoint.export import DECODER, TOWER, WEIGHTS
from arlow_trainer.checkpoint.layout import checkpoint_name
from arlow_trainer.checkpoint.location import newest_step
from arlow_trainer.checkpoint.reader import download
from arlow_trainer.checkpoint.training_state import TRAINING_STATE, TrainingState, saved_run
from arlow_trainer.config import ArlowPretrain
from arlow_trainer.config.errors import StoreError
from arlow_trainer.engine import build_autoencoder
from arlow_trainer.mae import MaskedAutoencoder
from arlow_trainer.storage.store import Store


def load_autoencoder(
    store: Store, step: int | None = None
) -> tuple[MaskedAutoencoder, ArlowPretrain, TrainingState]:
    """Loads a checkpoint's tower and decoder in float32 on the CPU, ready for inference.

    Args:
        store: the run's store.
        step: the checkpoint's step; None takes the newest complete one.

    Raises:
        StoreError: there is no such checkpoint, or it is damaged or of another version.
    """
    names = [TRAINING_STATE, f"{TOWER}/{WEIGHTS}", f"{DECODER}/{WEIGHTS}"]
    step = newest_step(store) if step is None else check_contents(store, step, names)
    url = store.url_of(checkpoint_name(step))
    with tempfile.TemporaryDirectory() as folder:
        state_file, *weights = download(store, step, names, Path(folder))
        state = TrainingState.from_bytes(state_file.read_bytes(), f"{url}/{TRAINING_STATE}")
        try:
            tower, decoder = (_tensors(path) for path in weights)
        except SafetensorError as error:
            raise _other_version(url, str(error)) from None
    run = saved_run(state, f"{url}/{TRAINING_STATE}")
    # On the meta device, since the checkpoint replaces all initial weights.
    with torch.device("meta"):
        module = build_autoencoder(run.spec.training)
    try:
        module.tower.load_state_dict(tower, assign=True)
        module.decoder.load_state_dict(decoder, assign=True)
    except RuntimeError as error:
        raise _other_version(url, str(error)) from None
    return module.eval().requires_grad_(False), run, state


def _tensors(path: Path) -> dict[str, Tensor]:
    return {name: tensor.float() for name, tensor in load_file(path).items()}


def _other_version(url: str, reason: str) -> StoreError:
    return StoreError(
        f"{url} does not fit this version of Arlow ({' '.join(reason.split())}); "
        "read it with the version that wrote it"
    )
