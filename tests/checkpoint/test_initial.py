"""A run that starts from another's weights, a checkpoint's or an export's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from arlow_trainer.checkpoint.initial import load_initial
from arlow_trainer.config.errors import ConfigError, StoreError
from arlow_trainer.engine import build_autoencoder
from arlow_trainer.storage.store import Store
from support.stored_run import run_store, save_checkpoint, tiny_run

__all__ = ["run_store"]


def new(seed: int = 7, **mae: object):  # type: ignore[no-untyped-def]
    training = tiny_run(**mae).spec.training.model_copy(update={"seed": seed})
    return build_autoencoder(training)


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


def test_a_run_a_checkpoint_and_an_export(store: Store, tmp_path: Path) -> None:
    saved = save_checkpoint(store, tiny_run(), 20)
    for origin in (store, Store(f"{store.url}/checkpoint-20")):
        module = new()
        assert not equal(module.tower, saved.tower)
        words = load_initial(module, origin)
        assert equal(module.tower, saved.tower)
        assert equal(module.decoder, saved.decoder)
        assert words == f"the tower and decoder of {store.url}/checkpoint-20"
    weights = "vision_encoder/model.safetensors"
    export = Store(str(tmp_path / "export"))
    export.write_bytes(weights, store.read_bytes(f"checkpoint-20/{weights}"))
    module = new()
    assert load_initial(module, export) == f"the tower of {export.url}, and a new decoder"
    assert equal(module.tower, saved.tower)
    other = new(decoderDim=16)
    assert f"the tower of {store.url}/checkpoint-20, and a new decoder: " in load_initial(
        other, store
    )
    assert equal(other.tower, saved.tower)


def test_another_tower_and_none_are_refused(store: Store, tmp_path: Path) -> None:
    document = tiny_run().spec.training
    model = document.model.model_copy(update={"depth": 3})
    module = build_autoencoder(document.model_copy(update={"model": model}))
    with pytest.raises(ConfigError, match=r"spec\.training\.init: .*blocks\.2\..* is missing, not"):
        load_initial(module, store)
    with pytest.raises(StoreError, match="holds no complete checkpoint"):
        load_initial(module, Store(str(tmp_path / "nothing")))
