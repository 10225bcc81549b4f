"""No pixel of a hidden patch reaches a visible token or a prediction, with every feature on."""

from __future__ import annotations

import pytest
import torch
from mae_cases import (
    CASES,
    IMAGE,
    PATCH,
    VIDEO,
    Case,
    build_autoencoder,
    draw_frames,
    draw_units,
    hidden_pixels,
)
from torch import Tensor

from arlow_trainer.mae import MaskedAutoencoder, encode_visible


@pytest.fixture(scope="module")
def autoencoder() -> MaskedAutoencoder:
    return build_autoencoder().eval()


@torch.no_grad()
def outputs(model: MaskedAutoencoder, frames: Tensor, units: Tensor) -> list[Tensor]:
    """The predictions, the visible tokens that a language model would read, and DeepStack's."""
    made = model.reconstruct(frames, units)
    index = made.view.visible[:, :, None].expand(-1, -1, made.patches.shape[-1])
    merged, deepstack = encode_visible(model.tower, made.patches.gather(1, index), made.view)
    assert len(deepstack) == 3
    return [made.predictions, merged, *deepstack]


def noise(frames: Tensor, where: Tensor, seed: int) -> Tensor:
    """The frames with every pixel of `where` [batch, height, width] moved in every frame."""
    generator = torch.Generator().manual_seed(seed)
    change = torch.randint(1, 256, frames.shape, dtype=torch.uint8, generator=generator)
    return torch.where(where[:, None, :, :, None], frames + change, frames)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_hidden_pixels_change_nothing(autoencoder: MaskedAutoencoder, case: Case) -> None:
    frames, units = draw_frames(case), draw_units(case)
    hidden = hidden_pixels(case, units)
    assert hidden.any()
    assert not hidden.all()
    before = outputs(autoencoder, frames, units)
    for seed in range(3):
        changed = noise(frames, hidden, seed)
        assert bool((changed != frames).any(-1).any(1).eq(hidden).all())
        after = outputs(autoencoder, changed, units)
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("case", [IMAGE, VIDEO], ids=str)
def test_each_hidden_patch_alone_changes_nothing(
    autoencoder: MaskedAutoencoder, case: Case
) -> None:
    frames, units = draw_frames(case), draw_units(case)
    hidden = hidden_pixels(case, units)
    before = outputs(autoencoder, frames, units)
    corners = hidden[:, ::PATCH, ::PATCH].nonzero().tolist()
    for sample, row, column in corners:
        changed = frames.clone()
        top, left = row * PATCH, column * PATCH
        changed[sample, :, top : top + PATCH, left : left + PATCH] ^= 255
        after = outputs(autoencoder, changed, units)
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_visible_pixels_change_everything(autoencoder: MaskedAutoencoder, case: Case) -> None:
    frames, units = draw_frames(case), draw_units(case)
    before = outputs(autoencoder, frames, units)
    places = (~hidden_pixels(case, units)).nonzero()
    chosen = places[torch.randperm(len(places), generator=torch.Generator().manual_seed(0))[:8]]
    for sample, row, column in chosen.tolist():
        frame = (row + column) % case.frames
        changed = frames.clone()
        changed[sample, frame, row, column, 1] ^= 255
        after = outputs(autoencoder, changed, units)
        for a, b in zip(before, after, strict=True):
            assert not torch.equal(a[sample], b[sample])
            others = [other for other in range(case.batch) if other != sample]
            assert torch.equal(a[others], b[others])


@pytest.mark.parametrize("case", [IMAGE, VIDEO], ids=str)
def test_gradients_of_hidden_pixels_are_zero(autoencoder: MaskedAutoencoder, case: Case) -> None:
    units = draw_units(case)
    frames = draw_frames(case).float().requires_grad_()
    predictions = autoencoder.reconstruct(frames.clone(), units).predictions
    (gradient,) = torch.autograd.grad(predictions.square().sum(), frames)
    hidden = hidden_pixels(case, units)[:, None, :, :, None].expand_as(gradient)
    assert bool((gradient[hidden] == 0).all())
    assert bool((gradient[~hidden] != 0).all())
