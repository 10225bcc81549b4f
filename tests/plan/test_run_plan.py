"""The plan of a run, against what was measured on an H200 and against arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest

from arlow_trainer.config import load_run
from arlow_trainer.plan import (
    HARDWARE,
    Tokens,
    activation_bytes,
    choose_micro_batch,
    tokens_per_clip,
    tokens_per_image,
    total_parameters,
)
from arlow_trainer.plan.choice import saturating_images
from arlow_trainer.plan.hardware import GIB
from arlow_trainer.plan.reference import reference
from arlow_trainer.plan.run_plan import DevicePlan, RunPlan, Unfit, plan_run
from arlow_trainer.plan.speed import micro_batch_seconds, reduction_beyond

FULL = load_run("arlow-vision-3072")
TRAINING = FULL.spec.training
IMAGE, CLIP = tokens_per_image(TRAINING), tokens_per_clip(TRAINING)
H200 = HARDWARE["h200"]


def on(gpu: str, *overrides: str) -> DevicePlan:
    (device,) = plan_run(load_run("arlow-vision-3072", overrides), [HARDWARE[gpu]]).devices
    assert isinstance(device, DevicePlan)
    return device


@pytest.mark.parametrize(
    ("tokens", "samples", "measured"), [(IMAGE, 96, 25.5), (IMAGE, 192, 44.6), (CLIP, 24, 44.7)]
)
def test_memory_is_what_an_h200_held(tokens: Tokens, samples: int, measured: float) -> None:
    """Weights, gradients and activations, without an optimiser."""
    held = 4 * total_parameters(TRAINING) + activation_bytes(TRAINING, tokens, samples, 2)
    assert held / GIB == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize(
    ("tokens", "samples", "measured"),
    [
        (IMAGE, 24, 0.057),
        (IMAGE, 96, 0.168),
        (IMAGE, 192, 0.322),
        (CLIP, 8, 0.125),
        (CLIP, 24, 0.357),
    ],
)
def test_micro_batches_take_what_they_took_on_an_h200(
    tokens: Tokens, samples: int, measured: float
) -> None:
    planned = micro_batch_seconds(TRAINING, tokens, H200, samples)
    assert planned == pytest.approx(measured, rel=0.1)


def test_a_step_takes_what_it_took_on_an_h200() -> None:
    """1.65 s for 192 images and 64 clips on one; the update 0.14 to 0.18 s."""
    seconds = on("h200", "nodes.gpus=1", "batch.globalSize=256").seconds
    assert seconds.total == pytest.approx(1.65, rel=0.2)
    assert 0.13 < seconds.update < 0.18
    assert seconds.reduce == seconds.gather == 0


def test_the_micro_batch_is_what_pays_fits_and_comes() -> None:
    assert saturating_images(FULL, H200) == 96
    alone = ["nodes.gpus=1", "batch.globalSize=256"]
    assert on("h200", *alone).choice.images == 96
    assert "no faster on h200" in on("h200", *alone).choice.reason
    small = on("v100-16gb").choice
    assert small.images < 48
    assert small.reason == "no more fits into 16.0 GiB"
    assert small.memory.total < 16 * GIB * 0.9
    assert on("h100", "batch.globalSize=32").choice.reason.startswith("a device's share")
    own = on("h100", "batch.microBatch=5").choice
    assert (own.images, own.reason) == (5, "spec.training.batch.microBatch says so")


def test_memory_in_use_by_others_is_taken_off() -> None:
    half = choose_micro_batch(FULL, 8, 17 * GIB, HARDWARE["rtx-8000"])
    whole = choose_micro_batch(FULL, 8, 48 * GIB, HARDWARE["rtx-8000"])
    assert half.images < whole.images
    assert half.memory.total < 17 * GIB * 0.9


def plan(*overrides: str) -> RunPlan:
    return plan_run(load_run("arlow-vision-3072", overrides), list(HARDWARE.values()))


def test_the_plan_of_the_default_run_by_hand() -> None:
    found = plan()
    assert (found.images, found.clips, found.steps) == (192, 64, 5_004)
    # At every 1,000 steps and at the end.
    assert (found.checkpoints, found.kept_checkpoints) == (6, 3)
    assert found.checkpoint_bytes == 14 * total_parameters(TRAINING)
    assert found.host.total < found.host.available == 200 * 2**30
    card = next(d for d in found.devices if isinstance(d, DevicePlan) and d.gpu == "rtx-8000")
    assert card.communicated_bytes == pytest.approx(2 * 2 * total_parameters(TRAINING) * 7 / 8)
    # 2.9 GB each way at 8 GB/s; what is reduced beside the last backward pass takes no time.
    assert card.seconds.gather == pytest.approx(0.36, abs=0.01)
    assert card.seconds.reduce + card.seconds.hidden == pytest.approx(card.seconds.gather)
    assert card.seconds.hidden > 0.6 * card.seconds.gather
    assert card.images_per_second == pytest.approx(192 / card.seconds.total)
    peak = 8 * 130.5e12
    assert card.utilization == pytest.approx(found.step_flops / card.seconds.total / peak)
    assert card.total_seconds is not None
    assert card.total_seconds > 5_000 * card.seconds.total
    # A checkpoint is copied while the next step runs.
    assert card.checkpoint_copy_seconds > 0.5
    assert card.checkpoint_stall_seconds == 0


@pytest.mark.parametrize(
    ("backward", "reduction", "buckets", "beyond"),
    [
        (1.0, 0.2, 1.0, 0.2),  # one bucket is full at the end
        (1.0, 0.2, 0.3, 0.2),
        (1.0, 0.2, 4.0, 0.05),  # the last of four
        (1.0, 0.2, 2.5, 0.2 * 0.5 / 2.5),
        (0.0, 0.2, 4.0, 0.2),
        (0.4, 4.0, 4.0, 4.0 - 0.3),  # the bus is the slower: all but the first bucket's pass
        (1.0, 0.0, 3.3, 0.0),
    ],
)
def test_what_a_reduction_lasts_beyond_the_backward_pass(
    backward: float, reduction: float, buckets: float, beyond: float
) -> None:
    assert reduction_beyond(backward, reduction, buckets) == pytest.approx(beyond)


def test_a_plan_without_a_known_length() -> None:
    found = plan("data.images.path=./elsewhere")
    assert found.steps is found.checkpoints is None
    assert all(d.total_seconds is None for d in found.devices if isinstance(d, DevicePlan))
    assert plan("data.images.path=./elsewhere", "data.repeat=true").steps == 2_621_440


def test_gpus_that_cannot_are_told_why() -> None:
    devices = {device.gpu: device for device in plan("precision=bf16", "nodes.gpus=2").devices}
    assert isinstance(devices["rtx-8000"], Unfit)
    assert devices["rtx-8000"].reason == "has no bf16"
    small = {device.gpu: device for device in plan("nodes.gpus=2").devices}["v100-16gb"]
    assert isinstance(small, Unfit)
    assert "even with one sample" in small.reason


def test_more_gpus_and_recomputing_change_what_they_should() -> None:
    few, many = on("h100", "nodes.gpus=2"), on("h100", "nodes.gpus=8")
    assert few.seconds.reduce < many.seconds.reduce
    again = on("h100", "gradientCheckpointing=true")
    kept = on("h100")
    assert again.choice.memory.activations < kept.choice.memory.activations
    assert again.seconds.clips > 1.2 * kept.seconds.clips


def test_the_page_is_current() -> None:
    page = Path(__file__).parents[2] / "docs" / "planning.md"
    assert page.read_text() == reference(), "run `make docs`"
