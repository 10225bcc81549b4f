"""A run that starts from another run's weights, as users start it."""

from __future__ import annotations

from pathlib import Path

import torch
from training_runs import Media, TrainingRun

from arlow_trainer.storage.store import Store
from support.stored_run import MANIFEST, run_store, save_checkpoint, tiny_run

__all__ = ["run_store"]


def test_it_trains_on_and_says_from_what(store: Store, media: Media, tmp_path: Path) -> None:
    origin = save_checkpoint(store, tiny_run(), 20)
    of_origin = MANIFEST["spec"]["training"]
    run = TrainingRun(
        tmp_path / "new",
        media,
        init=store.url,
        seed=7,
        maxStepsPerEpoch=1,
        model=of_origin["model"],
        mae=of_origin["mae"],
        # Weights hardly move in a step, so that they are still the origin's.
        optimizer={"learningRate": 1e-9, "warmupSteps": 1},
    )
    ended = run.train(1)
    assert ended.code == 0, ended.log
    weights = run.weights(1)
    for part, module in (("vision_encoder", origin.tower), ("decoder", origin.decoder)):
        for name, value in module.state_dict().items():
            torch.testing.assert_close(weights[f"{part}.{name}"], value, rtol=0, atol=1e-6)
    words = f"the tower and decoder of {store.url}/checkpoint-20"
    phases = [event["message"] for event in run.events() if event["kind"] == "phase"]
    assert f"starting from {words}" in phases
    card = (run.url / "checkpoint-1" / "README.md").read_text()
    assert f"| Started from | `{store.url}` |" in card
