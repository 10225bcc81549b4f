"""The masked autoencoder: pixels and masks in, each sample's loss out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from arlow_trainer.model import ArlowVLVisionModel
from arlow_trainer.model.patches import patchify

from .decoder import PixelDecoder
from .loss import pixel_targets, sample_losses
from .view import MERGE, VisibleView, encode_visible, visible_view


@dataclass(frozen=True)
class Reconstruction:
    """What the autoencoder makes of a micro-batch.

    Attributes:
        predictions: pixels of the hidden patches as predicted, [batch, m, features].
        patches: all patches of the input, normalised pixels, row-major, [batch, tokens, features].
        view: the masks' geometry.
    """

    predictions: Tensor
    patches: Tensor
    view: VisibleView


class MaskedAutoencoder(nn.Module):
    """`ArlowVLVisionModel` with a pixel decoder behind it."""

    def __init__(
        self, tower: ArlowVLVisionModel, decoder: PixelDecoder, normalized_pixel_loss: bool
    ) -> None:
        """Joins a tower and its decoder.

        Args:
            tower: the tower, with merge units of 2 x 2 patches.
            decoder: a decoder for towers of its configuration.
            normalized_pixel_loss: normalise each target patch by its own mean and variance.

        Raises:
            ValueError: the tower merges units of another size.
        """
        super().__init__()
        if tower.config.spatial_merge_size != MERGE:
            raise ValueError(
                f"the tower's spatial_merge_size is {tower.config.spatial_merge_size}: masked "
                f"autoencoding masks merge units of {MERGE} x {MERGE} patches only."
            )
        self.tower = tower
        self.decoder = decoder
        self.normalized_pixel_loss = normalized_pixel_loss

    def forward(self, frames: Tensor, units: Tensor) -> Tensor:
        """Returns each sample's loss.

        Args:
            frames: uint8 [batch, frames, height, width, 3]; one frame is a picture.
            units: visible merge units of each sample, int64 [batch, k].

        Returns:
            float32 [batch].
        """
        made = self.reconstruct(frames, units)
        targets = pixel_targets(_take(made.patches, made.view.hidden), self.normalized_pixel_loss)
        return sample_losses(made.predictions, targets)

    def reconstruct(self, frames: Tensor, units: Tensor) -> Reconstruction:
        """Predicts the hidden patches; arguments as in `forward`."""
        patches, view, merged, deepstack = self.encode(frames, units)
        return Reconstruction(self.decoder(merged, deepstack, view), patches, view)

    def encode(
        self, frames: Tensor, units: Tensor
    ) -> tuple[Tensor, VisibleView, Tensor, list[Tensor]]:
        """Runs the tower on the visible tokens; arguments as in `forward`.

        Returns:
            All patches of the input and the masks' geometry, as in `Reconstruction`, then the
            merged tokens and DeepStack features as in `encode_visible`.
        """
        config = self.tower.config
        size, depth = config.patch_size, config.temporal_patch_size
        pixels = normalize_pixels(frames)
        if pixels.shape[1] == 1:
            pixels = pixels.expand(-1, depth, -1, -1, -1)
        grid = (pixels.shape[1] // depth, pixels.shape[2] // size, pixels.shape[3] // size)
        patches = patchify(pixels, size, depth)
        view = visible_view(self.tower, grid, units)
        visible = _take(patches, view.visible).to(self.tower.dtype)
        return patches, view, *encode_visible(self.tower, visible, view)

    def gradient_checkpointing_enable(self) -> None:
        """Recomputes blocks in the backward pass instead of keeping their activations."""
        self.tower.activation_checkpointing_enable()
        self.decoder.gradient_checkpointing = True


def normalize_pixels(frames: Tensor) -> Tensor:
    """Maps uint8 pixels to float32 as the processors do: scale 1/255, mean and deviation 0.5."""
    return frames.float().mul_(1 / 127.5).sub_(1.0)


def merge_units(grid: tuple[int, int, int]) -> int:
    """Returns the merge units of one temporal step of a grid."""
    return (grid[1] // MERGE) * (grid[2] // MERGE)


def _take(patches: Tensor, tokens: Tensor) -> Tensor:
    return torch.gather(patches, 1, tokens[:, :, None].expand(-1, -1, patches.shape[-1]))
