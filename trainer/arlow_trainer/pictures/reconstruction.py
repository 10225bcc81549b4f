"""Reconstructs an image or clip with an autoencoder, as pixels, and scores the reconstruction.

Visible patches are shown as they are and hidden ones as predicted (He et al., 2022,
arXiv:2111.06377).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from arlow_trainer.config import MaeSection, TrainingSection
from arlow_trainer.mae import (
    PATCH_VARIANCE_EPSILON,
    MaskedAutoencoder,
    Reconstruction,
    draw_masks,
    merge_units,
    patch_grid,
)
from arlow_trainer.model.geometry import unpatchify

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Score:
    """PSNR in dB over the hidden patches, of the reconstruction and of two baselines.

    Attributes:
        prediction: of the reconstruction.
        mean_colour: of filling all hidden patches with the mean colour of the visible ones.
        patch_means: of filling each hidden patch with its own mean brightness; None unless the
            reconstruction uses the hidden patches' means and deviations.
    """

    prediction: float
    mean_colour: float
    patch_means: float | None


@dataclass(frozen=True)
class Panels:
    """The original and the reconstruction of an image or clip.

    Attributes:
        original, reconstruction: uint8 [frames, height, width, 3].
        hidden: True at pixels that the tower did not see, bool [frames, height, width].
        score: PSNR of the reconstruction.
    """

    original: Pixels
    reconstruction: Pixels
    hidden: npt.NDArray[np.bool_]
    score: Score


@torch.no_grad()
def reconstruct(
    module: MaskedAutoencoder, frames: Pixels, mae: MaeSection, seed: int
) -> Reconstruction:
    """Hides patches of an image or clip and predicts them, on the module's device.

    Args:
        module: the autoencoder.
        frames: uint8 [frames, height, width, 3]; an image is one frame.
        mae: says how many merge units to hide.
        seed: the mask's seed.

    Returns:
        The module's reconstruction of a batch of one. On a GPU the work is only enqueued.
    """
    device = next(module.parameters()).device
    pixels = torch.from_numpy(np.ascontiguousarray(frames))[None]
    config = module.tower.config
    hidden = mae.hidden_unit_count(merge_units(patch_grid(config, pixels)))
    units = draw_masks(config, pixels, [seed], hidden)
    training = module.training
    module.eval()
    try:
        return module.reconstruct(pixels.to(device), units.to(device))
    finally:
        module.train(training)


def panels(made: Reconstruction, frames: int, training: TrainingSection) -> Panels:
    """Converts a reconstruction of one sample to pixels.

    With `mae.normalizedPixelLoss`, predictions are normalised by the patch's own mean and
    deviation, which are taken from the hidden patch itself.

    Args:
        made: a reconstruction of a batch of one.
        frames: number of frames of the sample; 1 for an image, which is repeated to fill a patch.
        training: the section that the model was trained with.
    """
    normalized, model = training.mae.normalized_pixel_loss, training.model
    patches = made.patches[0].float().cpu()
    predictions = made.predictions[0].float().cpu()
    positions = made.view.hidden[0].cpu()
    truth = patches[positions]
    mean, deviation = torch.zeros(1), torch.ones(1)
    if normalized:
        mean = truth.mean(dim=-1, keepdim=True)
        deviation = (truth.var(dim=-1, keepdim=True) + PATCH_VARIANCE_EPSILON).sqrt()

    def to_frames(values: Tensor) -> npt.NDArray[np.float32]:
        full = patches.index_copy(0, positions, values)
        sizes = model.patch_size, model.temporal_patch_size
        pixels = unpatchify(full[None], made.view.grid, *sizes)
        return pixels[0, :frames].numpy()

    # The hidden pixels are those that change with the values of hidden patches.
    changed = to_frames(torch.ones_like(truth)) != to_frames(torch.full_like(truth, -1.0))
    hidden = changed.any(axis=-1)
    original = _uint8(to_frames(truth))
    reconstruction = _uint8(to_frames(predictions * deviation + mean))
    fill = original.copy()
    fill[hidden] = original[~hidden].mean(axis=0).round()
    own_means = _uint8(to_frames(mean.expand_as(truth))) if normalized else None
    score = Score(
        prediction=psnr(original[hidden], reconstruction[hidden]),
        mean_colour=psnr(original[hidden], fill[hidden]),
        patch_means=None if own_means is None else psnr(original[hidden], own_means[hidden]),
    )
    return Panels(original, reconstruction, hidden, score)


def psnr(truth: Pixels, prediction: Pixels) -> float:
    """Returns the peak signal-to-noise ratio of uint8 pixels in dB; infinity if they are equal."""
    error = np.square(truth.astype(np.float64) - prediction.astype(np.float64)).mean()
    return math.inf if error == 0 else float(10 * np.log10(255.0**2 / error))


def notes(score: Score, normalized: bool) -> list[str]:
    """Returns sentences that explain a reconstruction and its score to a viewer."""
    scores = (
        f"Hidden patches: PSNR {score.prediction:.1f} dB "
        f"(mean colour alone: {score.mean_colour:.1f} dB"
    )
    if not normalized:
        return [f"{scores})"]
    return [
        f"{scores}, each patch's own mean brightness: {score.patch_means:.1f} dB)",
        "The model predicts each patch up to its mean and contrast, which are taken from the "
        "original here (as in He et al., 2022).",
    ]


def _uint8(pixels: npt.NDArray[np.float32]) -> Pixels:
    """Maps pixels normalised to [-1, 1] to uint8."""
    scaled = np.clip((pixels + 1.0) * 127.5, 0, 255).round()
    result: Pixels = scaled.astype(np.uint8)
    return result
