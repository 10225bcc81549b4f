"""The weights that a run starts from, where they are another run's or an export's."""

from __future__ import annotations

import tempfile
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from arlow_trainer.checkpoint.export import DECODER, TOWER, WEIGHTS
from arlow_trainer.checkpoint.layout import checkpoint_name
from arlow_trainer.checkpoint.location import newest_step
from arlow_trainer.config.errors import ConfigError
from arlow_trainer.mae import MaskedAutoencoder
from arlow_trainer.storage.store import Store


def load_initial(module: MaskedAutoencoder, store: Store) -> str:
    """Sets a new model's weights to those of a run's newest checkpoint, a checkpoint or an export.

    Of an export, which has none, and where it has other sizes, the decoder stays new. Returns in
    words what was taken.

    Raises ConfigError where the tower is another, StoreError and CredentialsError where it cannot
    be read.
    """
    folder = ""
    if not store.exists(f"{TOWER}/{WEIGHTS}"):
        folder = f"{checkpoint_name(newest_step(store))}/"
    url = store.url_of(folder.rstrip("/")) if folder else store.url
    mismatch = _load(module.tower, store, f"{folder}{TOWER}/{WEIGHTS}")
    if mismatch:
        raise ConfigError(
            f"spec.training.init: {url} holds another tower than spec.training.model: {mismatch}; "
            "give model the values of that run, or another URL"
        )
    key = f"{folder}{DECODER}/{WEIGHTS}"
    if not store.exists(key):
        return f"the tower of {url}, and a new decoder"
    if mismatch := _load(module.decoder, store, key):
        return f"the tower of {url}, and a new decoder: {mismatch}"
    return f"the tower and decoder of {url}"


def _load(part: nn.Module, store: Store, key: str) -> str | None:
    """Loads a file of weights; returns why they do not fit, with nothing loaded, or None."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / WEIGHTS
        store.get_file(key, path)
        try:
            weights = load_file(path)
        except SafetensorError as error:
            return f"{key} is damaged: {error}"
        own = {name: tuple(tensor.shape) for name, tensor in part.state_dict().items()}
        theirs = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        for name in [*own, *theirs]:
            if own.get(name) != theirs.get(name):
                return f"{name} is {_shape(theirs.get(name))}, not {_shape(own.get(name))}"
        part.load_state_dict(weights)
        return None


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else " x ".join(map(str, shape))
