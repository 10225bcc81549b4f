"""Reconstructions as pixels, against plain numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from arlow_trainer.config import MaeSection
from arlow_trainer.engine import build_autoencoder
from arlow_trainer.mae import Reconstruction, normalize_pixels, visible_unit_batch, visible_view
from arlow_trainer.mae.autoencoder import pixel_targets
from arlow_trainer.model.geometry import patchify
from arlow_trainer.pictures.reconstruction import notes, panels, psnr, reconstruct
from support.stored_run import tiny_run

SIZE, PATCH, UNIT = 32, 4, 8
UNITS = (SIZE // UNIT) ** 2


def random_frames(frames: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (frames, SIZE, SIZE, 3), dtype=np.uint8)


def made_of(frames: np.ndarray, predict, seed: int = 5) -> Reconstruction:
    """A reconstruction whose predictions are a function of the hidden patches."""
    tower = build_autoencoder(tiny_run().spec.training).tower
    pixels = torch.from_numpy(frames)[None]
    if len(frames) == 1:
        pixels = pixels.expand(-1, 2, -1, -1, -1)
    patches = patchify(normalize_pixels(pixels), PATCH, 2)
    grid = (pixels.shape[1] // 2, SIZE // PATCH, SIZE // PATCH)
    view = visible_view(tower, grid, visible_unit_batch([seed], UNITS, 3 * UNITS // 4))
    return Reconstruction(predict(patches[:, view.hidden[0]]), patches, view)


def expected_hidden(frames: int, seed: int = 5) -> np.ndarray:
    side = SIZE // UNIT
    visible = np.zeros(UNITS, dtype=bool)
    visible[visible_unit_batch([seed], UNITS, 3 * UNITS // 4)[0].numpy()] = True
    mask = ~visible.reshape(side, side).repeat(UNIT, axis=0).repeat(UNIT, axis=1)
    return np.broadcast_to(mask, (frames, SIZE, SIZE))


@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize("normalized", [False, True])
def test_true_predictions_give_the_original(frames: int, normalized: bool) -> None:
    original = random_frames(frames)
    made = made_of(original, lambda truth: pixel_targets(truth, normalized))
    found = panels(made, frames, tiny_run(normalizedPixelLoss=normalized).spec.training)
    assert np.array_equal(found.original, original)
    assert np.array_equal(found.reconstruction, original)
    assert found.score.prediction == math.inf


@pytest.mark.parametrize("frames", [1, 4])
def test_visible_pixels_are_pasted_and_hidden_ones_predicted(frames: int) -> None:
    original = random_frames(frames)
    made = made_of(original, lambda truth: torch.full_like(truth, 7.0))
    found = panels(made, frames, tiny_run(normalizedPixelLoss=False).spec.training)
    hidden = expected_hidden(frames)
    assert np.array_equal(found.hidden, hidden)
    assert np.array_equal(found.reconstruction[~hidden], original[~hidden])
    assert (found.reconstruction[hidden] == 255).all()


def test_scores_against_plain_numpy() -> None:
    original = random_frames(1)
    made = made_of(original, torch.zeros_like)
    hidden = expected_hidden(1)
    truth = original[hidden].astype(float)

    found = panels(made, 1, tiny_run(normalizedPixelLoss=False).spec.training).score
    assert found.prediction == pytest.approx(10 * np.log10(255**2 / ((truth - 128) ** 2).mean()))
    fill = original[~hidden].mean(axis=0).round()
    assert found.mean_colour == pytest.approx(10 * np.log10(255**2 / ((truth - fill) ** 2).mean()))
    assert found.patch_means is None


def test_predicting_nothing_of_normalised_patches_is_their_mean() -> None:
    original = random_frames(1)
    made = made_of(original, torch.zeros_like)
    found = panels(made, 1, tiny_run(normalizedPixelLoss=True).spec.training)
    rows, columns = np.argwhere(found.hidden[0])[0] // PATCH * PATCH
    patch = original[0, rows : rows + PATCH, columns : columns + PATCH]
    shown = found.reconstruction[0, rows : rows + PATCH, columns : columns + PATCH]
    assert (shown == round(float(patch.mean()))).all()
    assert found.score.prediction == found.score.patch_means
    assert found.score.mean_colour != found.score.patch_means


def test_notes_say_what_comes_from_the_original() -> None:
    made = made_of(random_frames(1), torch.zeros_like)
    for normalized in (False, True):
        training = tiny_run(normalizedPixelLoss=normalized).spec.training
        text = " ".join(notes(panels(made, 1, training).score, normalized))
        assert ("He et al." in text) == normalized
        assert ("own mean brightness" in text) == normalized


@pytest.mark.parametrize("frames", [1, 4])
def test_hidden_pixels_do_not_affect_the_reconstruction(frames: int) -> None:
    training = tiny_run(normalizedPixelLoss=False).spec.training
    module = build_autoencoder(training)
    one, hidden = random_frames(frames, seed=1), expected_hidden(frames)
    other = np.where(hidden[..., None], random_frames(frames, seed=2), one)
    shown = [
        panels(reconstruct(module, each, MaeSection(), seed=5), frames, training).reconstruction
        for each in (one, other)
    ]
    assert np.array_equal(shown[0], shown[1])


def test_the_module_is_left_as_it_was() -> None:
    module = build_autoencoder(tiny_run().spec.training).train()
    made = reconstruct(module, random_frames(1), MaeSection(), seed=5)
    assert module.training
    assert not made.predictions.requires_grad


def test_psnr() -> None:
    black = np.zeros((4, 3), dtype=np.uint8)
    assert psnr(black, black) == math.inf
    assert psnr(black, black + 255) == 0.0
    assert psnr(black, black + 1) == pytest.approx(48.1308, abs=1e-4)
