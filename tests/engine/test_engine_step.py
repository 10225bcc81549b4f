"""The step on a real engine of one rank: its meaning, its sums, its clock, capture and restore."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from engine_cases import WAY, apart, build_runner, samples, training, weights

from arlow_trainer.config.errors import DeviceMemoryError, StoreError
from arlow_trainer.engine import (
    Ranks,
    build_autoencoder,
    install_shard,
    learning_rate,
    optimizer_shard,
    read_shards,
)
from arlow_trainer.engine.phase_clock import PhaseClock
from arlow_trainer.mae import visible_unit_batch
from arlow_trainer.plan.micro_batches import Sizes


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_step_is_adamw_on_the_mean_over_samples(alone: Ranks) -> None:
    """Against a plain PyTorch loop: clipping, decay, betas and the schedule included."""
    runner = build_runner(6, maxGradNorm=0.5)
    module = build_autoencoder(training())
    start = weights(runner)
    decayed = [p for p in module.parameters() if p.ndim >= 2]
    spared = [p for p in module.parameters() if p.ndim < 2]
    groups = [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]
    plain = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.95), weight_decay=0.05)
    for number in range(3):
        cut = [samples(2, first=10 * number), samples(2, 4, first=10 * number + 2)]
        cut.append(samples(2, first=10 * number + 4))
        assert runner.step(number, cut)
        losses = torch.cat(
            [module(batch.frames, visible_unit_batch(batch.mask_seeds, 16, 12)) for batch in cut]
        )
        losses.mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(module.parameters(), 0.5)
        for group in plain.param_groups:
            group["lr"] = learning_rate(number, 20, 2, 1e-3)
        plain.step()
        plain.zero_grad()
        assert runner.rate == learning_rate(number, 20, 2, 1e-3)
        assert runner.grad_norm() == pytest.approx(norm.item(), rel=1e-4)
        mean, image, video = runner.take_losses().means(alone)
        assert mean == pytest.approx(losses.mean().item(), rel=1e-5)
        assert image == pytest.approx(losses[[0, 1, 4, 5]].mean().item(), rel=1e-5)
        assert video == pytest.approx(losses[2:4].mean().item(), rel=1e-5)
    assert apart(weights(runner), module.state_dict(), start) < WAY


def test_micro_batches_change_nothing(alone: Ranks) -> None:
    whole, cut = build_runner(4), build_runner(4)
    start = weights(whole)
    for number in range(2):
        whole.step(number, [samples(4, first=4 * number)])
        cut.step(number, [samples(1, first=4 * number + place) for place in range(4)])
    assert apart(weights(whole), weights(cut), start) < WAY


def test_samples_that_fill_a_micro_batch_up_change_nothing(alone: Ranks) -> None:
    sizes = {"image": Sizes((2, 5)), "video": Sizes((3,))}
    plain, filled = build_runner(5), build_runner(5, sizes=sizes)
    start, computed = weights(plain), []
    filled.engine.module.register_forward_pre_hook(lambda _, call: computed.append(len(call[0])))
    for number in range(2):
        cut = [samples(3, first=8 * number), samples(2, 4, first=8 * number + 4)]
        for runner in (plain, filled):
            assert runner.step(number, cut)
        assert plain.grad_norm() == pytest.approx(filled.grad_norm(), rel=1e-5)
        assert plain.take_losses().means(alone) == pytest.approx(
            filled.take_losses().means(alone), rel=1e-6
        )
    assert computed == [5, 3, 5, 3]
    assert apart(weights(plain), weights(filled), start) < WAY


def test_losses_are_forgotten_when_taken(alone: Ranks) -> None:
    runner = build_runner(2)
    runner.step(0, [samples(2)])
    assert runner.take_losses().means(alone)[2] is None
    mean, image, video = runner.take_losses().means(alone)
    assert mean != mean
    assert image is video is None


def test_a_run_without_updates_is_captured_and_restored(alone: Ranks, tmp_path: Path) -> None:
    """Under fp16 the first steps may all overflow, and a checkpoint be due."""
    runner = build_runner(2)
    shard = optimizer_shard(runner.engine)
    assert shard.adam_step == 0
    shard.save(tmp_path / "shard.safetensors")
    runner.step(0, [samples(2)])
    again = build_runner(2)
    install_shard(again.engine, read_shards(again.engine, [tmp_path / "shard.safetensors"]))
    again.step(0, [samples(2)])
    assert equal(weights(runner), weights(again))


def test_capture_and_restore_continue_bitwise(alone: Ranks, tmp_path: Path) -> None:
    runner = build_runner(2)
    for number in range(2):
        runner.step(number, [samples(2, first=2 * number)])
    optimizer_shard(runner.engine).save(tmp_path / "shard.safetensors")
    other = build_runner(2)
    other.step(0, [samples(2, first=50)])
    install_shard(other.engine, read_shards(other.engine, [tmp_path / "shard.safetensors"]))
    assert equal(weights(runner), weights(other))
    for number in range(2, 4):
        for each in (runner, other):
            each.step(number, [samples(2, first=2 * number)])
    assert equal(weights(runner), weights(other))


def test_shards_that_lack_elements_are_refused(alone: Ranks, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"lacks \d+ elements"):
        read_shards(build_runner(2).engine, [])


def test_bf16_trains(alone: Ranks) -> None:
    runner = build_runner(2, "bf16")
    assert runner.engine.module.tower.dtype == torch.bfloat16
    first = None
    for number in range(8):
        assert runner.step(number, [samples(2)])
        loss = runner.take_losses().means(alone)[0]
        first = first or loss
    assert loss < first
    assert runner.loss_scale() is None


def test_the_clock_adds_up_phases(alone: Ranks) -> None:
    clock = PhaseClock(torch.device("cpu"))
    for _ in range(2):
        with clock.phase("data"):
            time.sleep(0.01)
    with clock.phase("checkpoint"):
        pass
    seconds = clock.collect(wait=False)
    assert set(seconds) == {"data", "checkpoint"}
    assert seconds["data"] >= 0.02 > seconds["checkpoint"] >= 0
    assert clock.collect(wait=True) == {}
    runner = build_runner(2)
    runner.step(0, [samples(2)])
    assert set(runner.clock.collect(wait=True)) == {
        "forward",
        "backward",
        "reduce",
        "optimizer",
    }


def test_a_device_out_of_memory_is_reported_with_a_remedy(alone: Ranks) -> None:
    runner = build_runner(2)

    def run_out(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nDetails")

    runner.engine.module.decoder.blocks[0].register_forward_hook(run_out)
    with pytest.raises(DeviceMemoryError, match=r"of one image: CUDA out of.*microBatch") as raised:
        runner.step(0, [samples(1), samples(2)])
    assert raised.value.exit_code == 4
