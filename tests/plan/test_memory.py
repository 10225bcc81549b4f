"""The memory model against what autograd keeps, and against a process's real peak."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from arlow_trainer.config import Compile, TrainingSection, load_run
from arlow_trainer.config.errors import DeviceMemoryError
from arlow_trainer.engine import build_autoencoder
from arlow_trainer.engine.compilation import Blocks
from arlow_trainer.engine.setup import deepspeed_config
from arlow_trainer.mae import visible_unit_batch
from arlow_trainer.plan import (
    Tokens,
    bytes_per_device,
    check_declared_gpus,
    choose_micro_batch,
    cpu_rank_memory,
    largest_micro_batch,
    saved_bytes,
    tokens_per_clip,
    tokens_per_image,
    total_parameters,
)
from arlow_trainer.plan.memory import ACTIVATION_KEEPS, MAX_BUCKET, RESERVE

GIB = 2**30

# The count is exact where torch runs its fused CPU attention; other versions may keep a mask more.
SAVED_TOLERANCE = 0.02
PEAK_TOLERANCE = 0.2

VARIANTS = (
    [],
    ["gradientCheckpointing=true"],
    ["model.depth=2", "mae.decoderDepth=1", "model.mlpRatio=3.0"],
    ["model.useDeformableAttention=false", "model.useProgressivePatches=false"],
    ["mae.maskRatio=0.5", "model.deepstackVisualIndexes=[0, 5]"],
    *([f"model.hiddenAct={name}", "model.depth=2"] for name in ACTIVATION_KEEPS),
)


def measured_saved_bytes(
    section: TrainingSection, tokens: Tokens, batch: int, compile: Compile = "never"
) -> int:
    module = build_autoencoder(section).train()
    blocks = Blocks(module, compile, torch.device("cpu"), {})
    parameters = {p.untyped_storage().data_ptr() for p in module.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    side = section.data.image_size
    frames = 1 if tokens.steps == 1 else section.data.clip_frames
    pixels = torch.zeros(batch, frames, side, side, 3, dtype=torch.uint8)
    units = visible_unit_batch(
        range(batch), tokens.units, section.mae.hidden_unit_count(tokens.units)
    )
    if compile == "always":
        with blocks.compiled():  # without the hooks
            module(pixels, units)
    with blocks.compiled(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = module(pixels, units).sum()  # held, so that no storage is freed and counted anew
    assert loss.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("overrides", VARIANTS, ids=str)
@pytest.mark.parametrize("kind", ["image", "clip"])
def test_saved_bytes_are_those_autograd_keeps(overrides: list[str], kind: str) -> None:
    section = load_run("tiny", overrides).spec.training
    tokens = tokens_per_image(section) if kind == "image" else tokens_per_clip(section)
    measured = measured_saved_bytes(section, tokens, batch=3)
    counted = saved_bytes(section, tokens, batch=3, number_bytes=4)
    assert counted == pytest.approx(measured, rel=SAVED_TOLERANCE)


@pytest.mark.parametrize("overrides", VARIANTS[:4], ids=str)
@pytest.mark.parametrize("kind", ["image", "clip"])
def test_compiled_blocks_keep_no_more(
    overrides: list[str], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With inductor's own choice of what to keep and what to compute again, and no compiler."""
    torch._dynamo.reset()
    backend = "aot_eager_decomp_partition"
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    section = load_run("tiny", overrides).spec.training
    tokens = tokens_per_image(section) if kind == "image" else tokens_per_clip(section)
    measured = measured_saved_bytes(section, tokens, 3, "always")
    counted = saved_bytes(section, tokens, batch=3, number_bytes=4)
    assert counted / 2 < measured < counted * (1 + SAVED_TOLERANCE)


# In a process of its own, so that nothing freed before can hide what a step allocates.
PEAK = """
import sys
import torch
from arlow_trainer.config import load_run
from arlow_trainer.engine import build_autoencoder
from arlow_trainer.mae import visible_unit_batch
from arlow_trainer.plan import activation_bytes, tokens_per_clip, tokens_per_image

def status(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

kind, batch = sys.argv[1], int(sys.argv[2])
section = load_run("tiny", sys.argv[3:]).spec.training
tokens = tokens_per_image(section) if kind == "image" else tokens_per_clip(section)
module = build_autoencoder(section)
side = section.data.image_size
frames = 1 if kind == "image" else section.data.clip_frames
pixels = torch.zeros(batch, frames, side, side, 3, dtype=torch.uint8)

def step(count):
    hidden = section.mae.hidden_unit_count(tokens.units)
    units = visible_unit_batch(range(count), tokens.units, hidden)
    module(pixels[:count], units).sum().backward()

step(1)  # gradients exist from here on
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
step(batch)
print(status("VmHWM") - before, activation_bytes(section, tokens, batch, 4))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("kind", "batch", "overrides"),
    [("image", 48, []), ("clip", 20, []), ("image", 48, ["gradientCheckpointing=true"])],
    ids=str,
)
def test_activations_are_a_processs_real_peak(kind: str, batch: int, overrides: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PEAK, kind, str(batch), *overrides],
        capture_output=True,
        text=True,
        check=True,
    )
    measured, modelled = map(int, result.stdout.split())
    assert modelled == pytest.approx(measured, rel=PEAK_TOLERANCE)


def test_state_of_the_full_run_by_hand() -> None:
    run = load_run("arlow-vision-3072")
    parameters = total_parameters(run.spec.training)
    memory = bytes_per_device(run, ranks=8, micro_batch=2)
    assert memory.parameters == memory.gradients == 2 * parameters
    assert memory.optimizer == pytest.approx(12 * parameters / 8, abs=12)
    assert memory.update == pytest.approx(6 * parameters / 8, abs=6)
    assert memory.buffers == 2 * MAX_BUCKET
    held = memory.parameters + memory.gradients + memory.optimizer + memory.buffers
    assert memory.total == held + max(memory.activations, memory.update)


def test_a_cpu_trains_in_float32() -> None:
    run = load_run("arlow-vision-3072")
    half, full = (bytes_per_device(run, 2, 1, precision) for precision in (None, "fp32"))  # type: ignore[arg-type]
    assert full.parameters == 2 * half.parameters
    assert full.optimizer == half.optimizer


@pytest.mark.parametrize("preset", ["arlow-vision-3072", "tiny"])
def test_the_bucket_is_the_engines(preset: str) -> None:
    run = load_run(preset)
    parameters = total_parameters(run.spec.training)
    config = deepspeed_config(run.spec.training, run.spec.training.precision, parameters)
    number = 2 if run.spec.training.precision == "fp16" else 4
    bucket = config["zero_optimization"]["reduce_bucket_size"]
    assert bytes_per_device(run, 2, 1).buffers == number * bucket


def test_the_full_run_fits_eight_cards_of_48_gb_in_one_micro_batch() -> None:
    run = load_run("arlow-vision-3072")
    # 256 samples over 8 devices, a quarter of them clips that count as 8 images each.
    assert largest_micro_batch(run, 8, 48 * GIB) == 88
    alone = load_run("arlow-vision-3072", ["data.videoProbability=0"])
    assert largest_micro_batch(alone, 8, 48 * GIB) == 32


@pytest.mark.parametrize("memory", [14 * GIB, 16 * GIB, 20 * GIB, 24 * GIB])
def test_the_largest_is_the_last_that_fits(memory: int) -> None:
    run = load_run("arlow-vision-3072")
    usable = memory * (1 - RESERVE)
    largest = largest_micro_batch(run, 8, memory)
    assert 1 <= largest < 88
    assert bytes_per_device(run, 8, largest).total <= usable
    assert bytes_per_device(run, 8, largest + 1).total > usable


def test_memory_never_falls_with_the_micro_batch_or_rises_with_the_ranks() -> None:
    run = load_run("arlow-vision-3072")
    by_batch = [bytes_per_device(run, 8, batch).total for batch in range(1, 65)]
    assert by_batch == sorted(by_batch)
    by_ranks = [bytes_per_device(run, ranks, 2).total for ranks in range(1, 33)]
    assert by_ranks == sorted(by_ranks, reverse=True)


def test_many_micro_batches_need_sums_of_their_gradients() -> None:
    """On one device 256 samples one at a time are 256 micro-batches, of which fp16 adds up 64."""
    run = load_run("arlow-vision-3072", ["nodes.gpus=1", "batch.globalSize=256"])
    parameters = total_parameters(run.spec.training)
    assert bytes_per_device(run, 1, 1).gradients == 6 * parameters
    assert bytes_per_device(run, 1, 24).gradients == 2 * parameters
    assert bytes_per_device(run, 8, 1).gradients == 2 * parameters
    assert bytes_per_device(run, 1, 1, "fp32").gradients == 4 * parameters
    # Where one at a time with sums does not fit, some at a time without may.
    fits = next(size for size in range(1, 99) if bytes_per_device(run, 1, size).gradients < 2**32)
    memory = int(bytes_per_device(run, 1, fits).total / (1 - RESERVE)) + 1
    assert largest_micro_batch(run, 1, memory) >= fits > 1
    assert bytes_per_device(run, 1, 1).total > memory * (1 - RESERVE)


def test_clips_alone_are_counted_by_their_tokens() -> None:
    run = load_run("tiny", ["data.videoProbability=1"])
    # 32 clips of two temporal steps over two ranks are 32 images a rank.
    assert largest_micro_batch(run, 2, 64 * GIB) == 32


def test_a_micro_batch_of_the_run_is_taken_unless_nothing_fits() -> None:
    chosen = load_run("arlow-vision-3072", ["batch.microBatch=200"])
    assert choose_micro_batch(chosen, 8, 48 * GIB).images == 200
    assert choose_micro_batch(load_run("arlow-vision-3072"), 8, 48 * GIB).images == 88
    with pytest.raises(DeviceMemoryError, match="even with one sample"):
        choose_micro_batch(chosen, 1, 24 * GIB)


@pytest.mark.parametrize(
    "largest",
    [
        ["model.depth=1000"],
        ["model={embedDim: 65536, numHeads: 4096, hiddenSize: 65536}"],
        ["mae.decoderDim=65536"],
        ["data={imageSize: 16380, videoProbability: 0}"],
        ["data.clipFrames=4096"],
        ["model={mlpRatio: 256, depth: 1000}"],
        ["model={depth: 1000, embedDim: 65536, numHeads: 4096}", "batch.microBatch=1"],
    ],
)
def test_the_largest_numbers_that_are_allowed_do_not_fit(largest: list[str]) -> None:
    """On a CPU too: exit code 4 before anything is allocated."""
    run = load_run("arlow-vision-3072", largest)
    with pytest.raises(DeviceMemoryError):
        choose_micro_batch(run, 1, cpu_rank_memory(128 * GIB, 1), precision="fp32")


def test_the_declared_gpus_are_planned_with() -> None:
    check_declared_gpus(load_run("arlow-vision-3072"))
    for gpu in ("rtx-8000", "a100-40gb", "h200"):
        check_declared_gpus(load_run("arlow-vision-3072", [f"nodes.gpuProduct={gpu}"]))
    check_declared_gpus(load_run("arlow-vision-3072", ["nodes={gpus: 0, gpuProduct: v100-16gb}"]))
    with pytest.raises(DeviceMemoryError, match="on each of 2 devices"):
        check_declared_gpus(
            load_run("arlow-vision-3072", ["nodes={gpus: 2, gpuProduct: v100-16gb}"])
        )


def test_a_run_that_cannot_fit_says_what_to_do() -> None:
    run = load_run("arlow-vision-3072")
    with pytest.raises(
        DeviceMemoryError, match=r"even with one sample.*use more devices"
    ) as caught:
        largest_micro_batch(run, 1, 24 * GIB)
    assert "gradientCheckpointing" not in str(caught.value)  # it would not help: state is too large
    long = load_run("tiny", ["data.clipFrames=64", "data.imageSize=450"])
    with pytest.raises(DeviceMemoryError, match="gradientCheckpointing=true"):
        largest_micro_batch(long, 1, GIB // 4)


def test_ranks_share_a_machines_memory() -> None:
    assert cpu_rank_memory(64 * GIB, 4) == 8 * GIB
    assert largest_micro_batch(load_run("tiny"), 2, cpu_rank_memory(8 * GIB, 2)) == 20
