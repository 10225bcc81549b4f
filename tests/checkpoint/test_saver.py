"""Saving an engine's state: as it was, beside training, once a step, and again where it failed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from arlow_trainer.checkpoint.copies import Copy
from arlow_trainer.checkpoint.reader import verify
from arlow_trainer.checkpoint.saver import CheckpointSaver
from arlow_trainer.checkpoint.training_state import Progress, TrainingState
from arlow_trainer.checkpoint.writer import SaveEvent
from arlow_trainer.config import ArlowPretrain
from arlow_trainer.data import MicroBatch
from arlow_trainer.engine import (
    Ranks,
    StepRunner,
    build_autoencoder,
    initialize_engine,
    optimizer_shard,
)
from arlow_trainer.storage.grace import Grace
from arlow_trainer.storage.store import Store
from support.checkpoints import new_attempt
from support.stored_run import tiny_run


@pytest.fixture
def run(tmp_path: Path) -> ArlowPretrain:
    return tiny_run(str(tmp_path / "runs"))


def new_engine(run: ArlowPretrain, ranks: Ranks) -> Any:
    training = run.spec.training
    return initialize_engine(build_autoencoder(training), training, "fp32", ranks.device)


def new_saver(
    run: ArlowPretrain,
    engine: Any,
    ranks: Ranks,
    on_event: Callable[[SaveEvent, float], None] = lambda event, stall: None,
) -> CheckpointSaver:
    return CheckpointSaver(
        Store(run.run_url),
        run,
        engine,
        ranks,
        attempt=new_attempt(),
        start=TrainingState.start(
            run, ranks=1, total_steps=40, set_sizes={"image": 4}, precision="fp32"
        ),
        grace=Grace(180),
        on_event=on_event,
    )


def one_sample(run: ArlowPretrain) -> MicroBatch:
    side = run.spec.training.data.image_size
    frames = torch.randint(0, 256, (1, 1, side, side, 3), dtype=torch.uint8)
    return MicroBatch("image", frames, mask_seeds=[0], indexes=[0])


def state_of(engine: Any) -> dict[str, dict[str, torch.Tensor]]:
    """What a checkpoint's files are to hold, copied."""
    kinds = {
        "optimizer/rank-00000-of-00001.safetensors": optimizer_shard(engine).tensors,
        "vision_encoder/model.safetensors": engine.module.tower.state_dict(),
        "decoder/model.safetensors": engine.module.decoder.state_dict(),
    }
    return {
        file: {name: tensor.detach().clone() for name, tensor in tensors.items()}
        for file, tensors in kinds.items()
    }


def assert_saved(run: ArlowPretrain, step: int, state: dict[str, dict[str, torch.Tensor]]) -> None:
    for file, tensors in state.items():
        found = load_file(Path(run.run_url) / f"checkpoint-{step}" / file)
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_a_save_holds_the_state_it_began_with(alone: Ranks, run: ArlowPretrain) -> None:
    engine, sample = new_engine(run, alone), one_sample(run)
    runner = StepRunner(engine, run.spec.training, 1, total_steps=40)
    states = {0: state_of(engine)}
    with new_saver(run, engine, alone) as saver:
        for step in range(4):
            # The next step begins while this is copied and written.
            saver.save(Progress(step))
            assert runner.step(step, [sample])
            states[step + 1] = state_of(engine)
        saver.finish(Progress(4))
    assert not torch.equal(*(states[n]["decoder/model.safetensors"]["mask_token"] for n in (1, 2)))
    for step, state in states.items():
        assert_saved(run, step, state)


def test_only_the_update_waits_for_the_copy(alone: Ranks, run: ArlowPretrain) -> None:
    engine, sample = new_engine(run, alone), one_sample(run)
    runner = StepRunner(engine, run.spec.training, 1, total_steps=40)
    before = state_of(engine)
    copied, backward = threading.Event(), threading.Event()
    embedding = engine.module.tower.patch_embed
    embedding.register_full_backward_hook(lambda *_: backward.set())
    with new_saver(run, engine, alone) as saver:
        saver._copy = Copy({}, lambda: copied.wait(60) and None)
        step = threading.Thread(target=runner.step, args=(0, [sample]))
        step.start()
        assert backward.wait(60)
        step.join(0.3)
        assert step.is_alive()
        for file, tensors in state_of(engine).items():
            assert all(torch.equal(before[file][name], tensors[name]) for name in tensors)
        copied.set()
        step.join(60)
        assert not step.is_alive()
        assert saver._stall > 0.2
    assert not torch.equal(
        before["decoder/model.safetensors"]["mask_token"], engine.module.decoder.mask_token
    )


def test_a_closed_saver_leaves_the_optimizer_alone(alone: Ranks, run: ArlowPretrain) -> None:
    engine = new_engine(run, alone)
    with new_saver(run, engine, alone) as saver:
        saver.finish(None)
    assert not engine.optimizer.optimizer._optimizer_step_pre_hooks


def test_every_save_is_copied_into_the_same_memory(alone: Ranks, run: ArlowPretrain) -> None:
    engine = new_engine(run, alone)
    with new_saver(run, engine, alone) as saver:
        addresses = set()
        for step in range(3):
            saver.save(Progress(step))
            assert saver._copy is not None
            addresses |= {min(tensor.data_ptr() for tensor in saver._copy.tensors.values())}
        saver.finish(None)
        numbers = sum(p.numel() for p in engine.module.parameters())
        files = sum(t.nbytes for tensors in state_of(engine).values() for t in tensors.values())
        assert len(addresses) == 1
        assert files <= saver.copy_bytes <= 1.01 * 4 * 4 * numbers


def test_a_step_is_saved_once_and_again_where_it_failed(alone: Ranks, run: ArlowPretrain) -> None:
    engine, store = new_engine(run, alone), Store(run.run_url)
    events: list[SaveEvent] = []
    in_the_way = Path(run.run_url) / "checkpoint-1"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("a file where a folder belongs")
    with new_saver(run, engine, alone, lambda event, stall: events.append(event)) as saver:
        saver.save(Progress(1))
        saver.save(Progress(2))  # waits for the first, which fails
        in_the_way.unlink()
        saver.save(Progress(1))
        saver.save(Progress(1))
        saver.finish(None)
    assert [(event.step, event.error is None) for event in events] == [
        (1, False),
        (2, True),
        (1, True),
    ]
    assert verify(store, 1) == verify(store, 2) == []
