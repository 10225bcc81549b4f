"""Loading the autoencoder of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from arlow_trainer.checkpoint.export import DECODER, TOWER, WEIGHTS, weights_file
from arlow_trainer.checkpoint.load import load_autoencoder
from arlow_trainer.checkpoint.training_state import TRAINING_STATE
from arlow_trainer.config.errors import StoreError
from arlow_trainer.engine import build_autoencoder
from arlow_trainer.storage.store import Store
from support.stored_run import run_store, save_checkpoint, state_at, tiny_run

__all__ = ["run_store"]


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    store, run = Store(str(tmp_path)), tiny_run()
    saved = save_checkpoint(store, run, 10)
    module, loaded_run, state = load_autoencoder(store)
    assert loaded_run == run
    assert (state.step, len(state.skipped_files)) == (10, 3)
    assert module.normalized_pixel_loss
    assert not module.training
    for name, value in saved.state_dict().items():
        assert torch.equal(module.state_dict()[name], value), name
    frames = torch.randint(0, 256, (1, 2, 32, 32, 3), dtype=torch.uint8)
    units = torch.tensor([[0, 5, 9, 14]])
    with torch.no_grad():
        assert torch.equal(module(frames, units), saved(frames, units))


def test_half_precision_is_loaded_as_float32(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    saved = save_checkpoint(store, tiny_run(), 10, dtype=torch.float16)
    module, _, _ = load_autoencoder(store)
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    weight = saved.state_dict()["decoder.head.weight"].float()
    assert torch.equal(module.state_dict()["decoder.head.weight"], weight)


def test_an_unfinished_newest_checkpoint_is_skipped(store: Store) -> None:
    store.write_bytes(f"checkpoint-30/{TOWER}/{WEIGHTS}", b"half")
    assert load_autoencoder(store)[2].step == 10


def test_a_url_without_checkpoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"holds no complete checkpoint.*arlow checkpoints ls"):
        load_autoencoder(Store(str(tmp_path)))


def test_a_missing_step_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="checkpoint-7 is no checkpoint"):
        load_autoencoder(store, 7)


def test_a_changed_byte_is_detected(store: Store) -> None:
    key = f"checkpoint-10/{DECODER}/{WEIGHTS}"
    data = bytearray(store.read_bytes(key))
    data[-1] ^= 0xFF
    store.write_bytes(key, bytes(data))
    with pytest.raises(StoreError, match=rf"{key} is damaged.*Use an earlier checkpoint"):
        load_autoencoder(store)


def other_weights(path: Path) -> None:
    weights_file({"mask_token": torch.zeros(3)})(path)


def run_of_the_future() -> bytes:
    state = state_at(10, tiny_run())
    state.run["spec"]["training"]["hovering"] = True
    return state.to_bytes()


def renamed_weights(path: Path) -> None:
    weights = build_autoencoder(tiny_run().spec.training).decoder.state_dict()
    weights_file({f"new.{name}": value for name, value in weights.items()})(path)


@pytest.mark.parametrize(
    ("instead", "step", "reason"),
    [
        ({f"{DECODER}/{WEIGHTS}": renamed_weights}, None, "does not fit this version of Arlow"),
        ({TRAINING_STATE: run_of_the_future()}, None, "hovering: .* another version of Arlow"),
        ({f"{DECODER}/{WEIGHTS}": other_weights}, None, "decoder/.* holds 3 parameters"),
        ({f"{DECODER}/{WEIGHTS}": other_weights}, 10, "decoder/.* holds 3 parameters"),
        ({f"{TOWER}/{WEIGHTS}": b"no safetensors at all"}, None, "vision_encoder/.* header"),
        ({f"{TOWER}/{WEIGHTS}": b"no safetensors at all"}, 10, "vision_encoder/.* header"),
    ],
)
def test_a_checkpoint_damaged_or_of_another_version_is_refused(
    tmp_path: Path, instead, step: int | None, reason: str
) -> None:
    store = Store(str(tmp_path))
    save_checkpoint(store, tiny_run(), 10, instead=instead)
    with pytest.raises(StoreError, match=reason) as raised:
        load_autoencoder(store, step)
    assert "checkpoint-10" in str(raised.value)
    assert "\n" not in str(raised.value)
