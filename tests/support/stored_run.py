"""A tiny real run in a store, saved by the real writer without training it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from arlow_trainer.checkpoint.export import DECODER, TOWER, WEIGHTS, card_file, weights_file
from arlow_trainer.checkpoint.training_state import TRAINING_STATE, TrainingState
from arlow_trainer.checkpoint.writer import FileWriter
from arlow_trainer.config import ArlowPretrain, validate
from arlow_trainer.engine import (
    MASTER,
    MOMENTS,
    Fragment,
    OptimizerShard,
    build_autoencoder,
    shard_name,
)
from arlow_trainer.mae import MaskedAutoencoder
from arlow_trainer.storage.store import Store
from support.checkpoints import only_rank

MANIFEST: dict[str, Any] = {
    "apiVersion": "arlow.dev/v1alpha1",
    "kind": "ArlowPretrain",
    "metadata": {"name": "tiny-run"},
    "spec": {
        "training": {
            "preset": "tiny",
            "model": {
                "depth": 2,
                "embedDim": 32,
                "hiddenSize": 32,
                "numHeads": 2,
                "patchSize": 4,
                "deepstackVisualIndexes": [0],
            },
            "mae": {"decoderDim": 32, "decoderDepth": 1, "decoderHeads": 2},
            "data": {"imageSize": 32},
        }
    },
}


def tiny_run(url: str = "runs", **mae: Any) -> ArlowPretrain:
    document = copy.deepcopy(MANIFEST)
    document["spec"]["checkpoint"] = {"url": url}
    document["spec"]["training"]["mae"] |= mae
    return validate(document, "the test's manifest")


def state_at(step: int, run: ArlowPretrain, **changed: Any) -> TrainingState:
    values: dict[str, Any] = {
        "step": step,
        "next_sample": step * run.spec.global_batch_size,
        "seed": 0,
        "ranks": 1,
        "total_steps": 40,
        "set_sizes": {"image": 4},
        "precision": "fp32",
        "loss": 0.5,
        "loss_scaler": {},
        "overflows": 0,
        "skipped_files": dict.fromkeys("abc", "truncated"),
        "run": run.model_dump(mode="json", by_alias=True, exclude={"status"}),
    }
    return TrainingState(**(values | changed))


def small_shard(step: int) -> OptimizerShard:
    """An optimiser state of a few numbers, which fits no model."""
    tensors = {f"0.{name}": torch.zeros(4) for name in (MASTER, *MOMENTS)}
    return OptimizerShard(tensors, [Fragment("weight", 0, 0, 4, 0)], step)


def save_checkpoint(
    store: Store,
    run: ArlowPretrain,
    step: int,
    *,
    dtype: torch.dtype = torch.float32,
    instead: Mapping[str, FileWriter | bytes] | None = None,
) -> MaskedAutoencoder:
    """Saves a new model as a checkpoint; `instead` replaces files of it. Returns the model."""
    module = build_autoencoder(run.spec.training).to(dtype)
    state = state_at(step, run)
    files: dict[str, FileWriter | bytes] = {
        f"{TOWER}/{WEIGHTS}": weights_file(module.tower.state_dict()),
        f"{DECODER}/{WEIGHTS}": weights_file(module.decoder.state_dict()),
        TRAINING_STATE: state.to_bytes(),
        "README.md": card_file(run, state, 1000),
        shard_name(0, 1): small_shard(step).save,
        **(instead or {}),
    }
    with only_rank(store) as writer:
        writer.submit(step, files)
        writer.wait()
    return module


@pytest.fixture(name="store")
def run_store(tmp_path: Path) -> Store:
    """The URL of `tiny_run`, with a checkpoint of step 10."""
    run = tiny_run(str(tmp_path / "runs"))
    store = Store(run.run_url)
    save_checkpoint(store, run, 10)
    return store
