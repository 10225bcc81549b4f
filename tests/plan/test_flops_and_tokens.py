"""Tokens, parameters and operations: against hand computation and the real modules."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from arlow_trainer.config import ModelSection, TrainingSection, load_run
from arlow_trainer.engine import build_autoencoder
from arlow_trainer.mae import visible_unit_batch
from arlow_trainer.model.configuration_arlow import default_deepstack_indexes
from arlow_trainer.plan import (
    Tokens,
    clip_training_flops,
    decoder_parameters,
    forward_flops,
    image_training_flops,
    tokens_per_clip,
    tokens_per_image,
    total_parameters,
    tower_parameters,
)
from arlow_trainer.plan.parameters import deepstack_taps

VARIANTS = (
    [],
    ["model.useProgressivePatches=false", "model.useDeformableAttention=false"],
    ["model.depth=3", "model.mlpRatio=3.0", "mae.maskRatio=0.5"],
    ["model.deepstackVisualIndexes=[0, 5]", "mae.decoderDepth=1", "mae.decoderDim=64"],
    ["data.imageSize=64", "data.clipFrames=8", "model.patchSize=4", "model.temporalPatchSize=4"],
)


def training(preset: str, overrides: list[str] | None = None) -> TrainingSection:
    return load_run(preset, overrides or []).spec.training


def test_tokens_of_the_full_run() -> None:
    # 224 / 14 = 16 patches a side, 8 x 8 merge units of which a quarter is seen.
    full = training("arlow-vision-3072")
    image, clip = tokens_per_image(full), tokens_per_clip(full)
    assert (image.total, image.visible, image.hidden) == (256, 64, 192)
    assert (clip.steps, clip.total, clip.visible, clip.hidden) == (8, 2048, 512, 1536)


def test_parameters_of_the_full_run_by_hand() -> None:
    full = training("arlow-vision-3072")
    block = 12 * 1536**2 + (3 + 1 + 4 + 1) * 1536 + 4 * 1536
    merger = 2 * 6144 + 6144**2 + 6144 + 6144 * 3072 + 3072
    ends = 1176 * 1536 + 1536**2 + 1536
    assert tower_parameters(full.model) == 48 * block + 4 * merger + ends
    assert tower_parameters(full.model) == 1_590_658_560


def test_parameters_of_the_full_model_built_on_the_meta_device() -> None:
    full = training("arlow-vision-3072")
    with torch.device("meta"):
        module = build_autoencoder(full)
    assert sum(p.numel() for p in module.tower.parameters()) == tower_parameters(full.model)
    decoder = sum(p.numel() for p in module.decoder.parameters())
    assert decoder == decoder_parameters(full.model, full.mae)


@pytest.mark.parametrize("overrides", VARIANTS, ids=str)
def test_parameters_are_those_of_the_modules(overrides: list[str]) -> None:
    section = training("tiny", overrides)
    module = build_autoencoder(section)
    assert sum(p.numel() for p in module.parameters()) == total_parameters(section)


@pytest.mark.parametrize("depth", range(1, 65))
def test_deepstack_taps_are_the_towers(depth: int) -> None:
    assert deepstack_taps(ModelSection(depth=depth)) == len(default_deepstack_indexes(depth))


@pytest.mark.parametrize("overrides", VARIANTS, ids=str)
@pytest.mark.parametrize("kind", ["image", "clip"])
def test_forward_operations_are_those_torch_counts(overrides: list[str], kind: str) -> None:
    section = training("tiny", overrides)
    tokens = tokens_per_image(section) if kind == "image" else tokens_per_clip(section)
    module = build_autoencoder(section)
    side = section.data.image_size
    frames = 1 if kind == "image" else section.data.clip_frames
    pixels = torch.zeros(2, frames, side, side, 3, dtype=torch.uint8)
    units = visible_unit_batch([1, 2], tokens.units, section.mae.hidden_unit_count(tokens.units))
    # Torch's counter knows attention as two plain products only.
    with FlopCounterMode(display=False) as forward, sdpa_kernel(SDPBackend.MATH):
        loss = module(pixels, units).sum()
    assert forward.get_total_flops() == 2 * forward_flops(section, tokens).total
    with FlopCounterMode(display=False) as backward, sdpa_kernel(SDPBackend.MATH):
        loss.backward()
    # A little less than twice: pixels and masks need no gradient.
    assert 1.9 < backward.get_total_flops() / forward.get_total_flops() <= 2


def test_operations_of_the_full_run_by_hand() -> None:
    full = training("arlow-vision-3072")
    seen, width, units = 64, 1536, 16
    block = 2 * seen * 12 * width**2 + 4 * seen**2 * width
    merger = 2 * units * (6144**2 + 6144 * 3072)
    patches = 2 * seen * 1176 * width + 2 * seen * units * width + 2 * seen * width**2
    decoder = (
        4 * 2 * units * 3072 * 2048
        + 8 * (2 * 256 * 12 * 512**2 + 4 * 256**2 * 512)
        + 2 * 192 * 512 * 1176
    )
    counted = forward_flops(full, tokens_per_image(full))
    assert counted.blocks == 48 * block
    assert counted.mergers == 4 * merger
    assert counted.patches == patches
    assert counted.decoder == decoder
    assert image_training_flops(full) == 3 * (48 * block + 4 * merger + patches + decoder)
    # A clip has eight times the tokens, and attention among all of them.
    assert clip_training_flops(full) > 8 * image_training_flops(full)


def test_a_tube_hides_the_same_units_at_every_step() -> None:
    assert Tokens(steps=8, units=64, visible_units=16, unit=4).visible == 8 * 16 * 4
