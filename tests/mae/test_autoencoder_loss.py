"""Targets and loss against plain numpy, from pixels to the last mean; gradients; precision."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from mae_cases import (
    CASES,
    DEPTH,
    IMAGE,
    PATCH,
    UNIT,
    VIDEO,
    Case,
    build_autoencoder,
    draw_frames,
    draw_units,
)
from torch import Tensor

from arlow_trainer.mae import MaskedAutoencoder, pixel_targets, sample_losses


def numpy_targets(sample: np.ndarray, shown: list[int], normalized: bool) -> np.ndarray:
    """Targets of one sample [frames, height, width, 3], patch by patch, in float64."""
    if len(sample) == 1:
        sample = np.repeat(sample, DEPTH, axis=0)
    frames, height, width, _ = sample.shape
    pixels = (sample.astype(np.float64) / 255 - 0.5) / 0.5
    targets = []
    for step in range(frames // DEPTH):
        for unit in sorted(set(range((height // UNIT) * (width // UNIT))) - set(shown)):
            top, left = (UNIT * number for number in divmod(unit, width // UNIT))
            for y, x in ((0, 0), (0, PATCH), (PATCH, 0), (PATCH, PATCH)):
                cube = pixels[
                    step * DEPTH : (step + 1) * DEPTH,
                    top + y : top + y + PATCH,
                    left + x : left + x + PATCH,
                ]
                patch = cube.transpose(3, 0, 1, 2).reshape(-1)
                if normalized:
                    patch = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)
                targets.append(patch)
    return np.stack(targets)


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
@torch.no_grad()
def test_the_loss_is_numpys(case: Case, normalized: bool) -> None:
    model = build_autoencoder(normalized)
    frames, units = draw_frames(case), draw_units(case)
    frames[0, :, :UNIT] = 77  # patches without variance, hidden or not
    losses = model(frames, units)
    predictions = model.reconstruct(frames, units).predictions.double().numpy()
    assert losses.dtype == torch.float32
    assert losses.shape == (case.batch,)
    for number in range(case.batch):
        targets = numpy_targets(frames[number].numpy(), units[number].tolist(), normalized)
        expected = np.mean(
            [np.mean((p - t) ** 2) for p, t in zip(predictions[number], targets, strict=True)]
        )
        assert losses[number].item() == pytest.approx(expected, rel=1e-5)


def test_targets_and_losses_are_float32_whatever_comes_in() -> None:
    patches = torch.rand(2, 3, 24)
    exact = pixel_targets(patches, True)
    half = pixel_targets(patches.bfloat16(), True)
    assert exact.dtype == half.dtype == torch.float32
    assert sample_losses(exact.bfloat16(), exact).dtype == torch.float32
    torch.testing.assert_close(exact.mean(-1), torch.zeros(2, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(exact.std(-1), torch.ones(2, 3), atol=1e-4, rtol=0)


def gradients(model: MaskedAutoencoder, frames: Tensor, units: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    model(frames, units).sum().backward()
    found = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        found[name] = parameter.grad.double()
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_parameter_learns_from_images_alone_and_from_videos_alone(case: Case) -> None:
    model = build_autoencoder()
    for name, gradient in gradients(model, draw_frames(case), draw_units(case)).items():
        assert bool(gradient.isfinite().all()), name
        assert bool(gradient.any()), name


@pytest.mark.parametrize("case", [IMAGE, VIDEO], ids=str)
def test_every_parameter_of_a_fresh_model_learns(case: Case) -> None:
    """From the weights that a run starts with, too: no zero initialisation cuts a path off."""
    drawn = build_autoencoder()
    fresh = MaskedAutoencoder(
        type(drawn.tower)(drawn.tower.config),
        type(drawn.decoder)(drawn.tower.config, 32, 2, 4),
        normalized_pixel_loss=True,
    )
    for name, gradient in gradients(fresh, draw_frames(case), draw_units(case)).items():
        assert gradient.abs().max() > 1e-9, name


@pytest.mark.parametrize("cut", [[8], [1] * 8, [3, 5], [4, 4], [1, 7]], ids=str)
@pytest.mark.parametrize("case", [Case(1, 16, 16, batch=8), Case(4, 8, 8, batch=8)], ids=str)
def test_the_sum_of_micro_batches_is_the_whole(case: Case, cut: list[int]) -> None:
    model = build_autoencoder().double()
    frames, units = draw_frames(case), draw_units(case)
    whole, losses = gradients(model, frames, units), model(frames, units)
    parts = torch.cat(
        [model(f, u) for f, u in zip(frames.split(cut), units.split(cut), strict=True)]
    )
    torch.testing.assert_close(parts, losses, rtol=1e-6, atol=0)
    total = {name: torch.zeros_like(gradient) for name, gradient in whole.items()}
    for f, u in zip(frames.split(cut), units.split(cut), strict=True):
        for name, gradient in gradients(model, f, u).items():
            total[name] += gradient
    for name, gradient in whole.items():
        scale = gradient.abs().max()
        torch.testing.assert_close(total[name] / scale, gradient / scale, rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", [IMAGE, VIDEO], ids=str)
def test_gradient_checkpointing_changes_nothing(case: Case) -> None:
    model = build_autoencoder().train()
    frames, units = draw_frames(case), draw_units(case)
    kept, loss = gradients(model, frames, units), model(frames, units)
    thrifty = copy.deepcopy(model)
    thrifty.gradient_checkpointing_enable()
    ran = []
    for block in (thrifty.tower.blocks[0].fc1, thrifty.decoder.blocks[0].fc1):
        block.register_forward_hook(lambda *_: ran.append(1))
    again = gradients(thrifty, frames, units)
    assert len(ran) == 4, "the blocks were not recomputed"
    assert torch.equal(thrifty(frames, units), loss)
    for name, gradient in kept.items():
        assert torch.equal(again[name], gradient), name


@pytest.mark.parametrize("case", [IMAGE, VIDEO], ids=str)
def test_bf16_is_float32_to_its_precision(case: Case) -> None:
    model = build_autoencoder()
    frames, units = draw_frames(case), draw_units(case)
    exact, loss = gradients(model, frames, units), model(frames, units)
    model.bfloat16()
    rounded = model(frames, units)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, loss, rtol=0.02, atol=0)
    for name, gradient in gradients(model, frames, units).items():
        likeness = torch.cosine_similarity(gradient.flatten(), exact[name].flatten(), dim=0)
        assert likeness > 0.98, (name, likeness)
