"""What an autoencoder makes of a picture or clip, as pixels, and how far it is from the truth.

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
    """PSNR in dB over the hidden patches, of what is predicted and of fillings to compare it with.

    Attributes:
        prediction: of the reconstruction.
        mean_colour: of the visible patches' mean colour in every hidden patch.
        patch_means: of each hidden patch's own mean brightness; None unless the reconstruction
            uses the hidden patches' means and deviations.
    """

    prediction: float
    mean_colour: float
    patch_means: float | None


@dataclass(frozen=True)
class Panels:
    """A picture or clip before and after.

    Attributes:
        original, reconstruction: uint8 [frames, height, width, 3].
        hidden: which pixels the tower did not see, bool [frames, height, width].
        score: how near the reconstruction is.
    """

    original: Pixels
    reconstruction: Pixels
    hidden: npt.NDArray[np.bool_]
    score: Score


@torch.no_grad()
def reconstruct(
    module: MaskedAutoencoder, frames: Pixels, mae: MaeSection, seed: int
) -> Reconstruction:
    """Hides patches of a picture or clip and predicts them, on the module's device.

    Args:
        module: the autoencoder.
        frames: uint8 [frames, height, width, 3]; one frame is a picture.
        mae: says how many merge units to hide.
        seed: the mask's seed.

    Returns:
        What the module makes of a batch of one. On a GPU the work is only enqueued.
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
    """Turns a reconstruction of one sample into pixels.

    With `mae.normalizedPixelLoss`, predictions are in units of the patch's own mean and deviation,
    which are then taken from the hidden patch itself.

    Args:
        made: a reconstruction of a batch of one.
        frames: the sample's frames; of a picture, which is repeated to fill a patch, 1.
        training: the section that the model was trained by.
    """
    normalized, model = training.mae.normalized_pixel_loss, training.model
    patches = made.patches[0].float().cpu()
    predictions = made.predictions[0].float().cpu()
    places = made.view.hidden[0].cpu()
    truth = patches[places]
    mean, deviation = torch.zeros(1), torch.ones(1)
    if normalized:
        mean = truth.mean(dim=-1, keepdim=True)
        deviation = (truth.var(dim=-1, keepdim=True) + PATCH_VARIANCE_EPSILON).sqrt()

    def joined(values: Tensor) -> npt.NDArray[np.float32]:
        full = patches.index_copy(0, places, values)
        sizes = model.patch_size, model.temporal_patch_size
        joint = unpatchify(full[None], made.view.grid, *sizes)
        return joint[0, :frames].numpy()

    shown = joined(torch.ones_like(truth)) != joined(torch.full_like(truth, -1.0))
    hidden = shown.any(axis=-1)
    original, after = _uint8(joined(truth)), _uint8(joined(predictions * deviation + mean))
    fill = original.copy()
    fill[hidden] = original[~hidden].mean(axis=0).round()
    own_means = _uint8(joined(mean.expand_as(truth))) if normalized else None
    score = Score(
        prediction=psnr(original[hidden], after[hidden]),
        mean_colour=psnr(original[hidden], fill[hidden]),
        patch_means=None if own_means is None else psnr(original[hidden], own_means[hidden]),
    )
    return Panels(original, after, hidden, score)


def psnr(truth: Pixels, guess: Pixels) -> float:
    """Returns the peak signal-to-noise ratio of uint8 pixels in dB; infinity where they agree."""
    error = np.square(truth.astype(np.float64) - guess.astype(np.float64)).mean()
    return math.inf if error == 0 else float(10 * np.log10(255.0**2 / error))


def notes(score: Score, normalized: bool) -> list[str]:
    """Returns what a viewer should know of a reconstruction, in sentences."""
    words = (
        f"Hidden patches: PSNR {score.prediction:.1f} dB "
        f"(mean colour alone: {score.mean_colour:.1f} dB"
    )
    if not normalized:
        return [f"{words})"]
    return [
        f"{words}, each patch's own mean brightness: {score.patch_means:.1f} dB)",
        "The model predicts each patch up to its mean and contrast, which are taken from the "
        "original here (as in He et al., 2022).",
    ]


def _uint8(pixels: npt.NDArray[np.float32]) -> Pixels:
    """Maps pixels normalised to [-1, 1] to uint8."""
    scaled = np.clip((pixels + 1.0) * 127.5, 0, 255).round()
    result: Pixels = scaled.astype(np.uint8)
    return result
