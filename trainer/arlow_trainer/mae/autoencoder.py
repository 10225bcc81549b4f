"""Masked autoencoding: mask, encode, decode, loss (He et al., 2022, arXiv:2111.06377)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from arlow_trainer.mae.view import MERGE, VisibleView, cached_table, encode_visible, visible_view
from arlow_trainer.model import ArlowVisionConfig, ArlowVLVisionModel
from arlow_trainer.model.geometry import (
    Grid,
    aligned_bias,
    distance_bias,
    normalised_coordinates,
    patchify,
)

STEEPEST, OCTAVES = 32.0, 6.0
PATCH_VARIANCE_EPSILON = 1e-6


# Mask


def draw_visible_units(mask_seed: int, units: int, hidden: int) -> np.ndarray:
    """Draws the merge units of one temporal step that stay visible.

    The same units are visible at every temporal step of a clip (tube masking: Tong et al., 2022,
    arXiv:2203.12602), so that an answer cannot be copied from the next frame.

    Args:
        mask_seed: the sample's own seed, non-negative.
        units: merge units of one temporal step, in row-major order.
        hidden: how many of them to hide.

    Returns:
        Sorted int64 unit indexes [units - hidden].
    """
    generator = np.random.Generator(np.random.Philox(mask_seed))
    return np.sort(generator.permutation(units)[: units - hidden]).astype(np.int64)


def visible_unit_batch(mask_seeds: Sequence[int], units: int, hidden: int) -> Tensor:
    """Draws the visible units of a micro-batch of samples of one grid.

    Returns:
        int64 [batch, units - hidden] on the CPU.
    """
    return torch.from_numpy(np.stack([draw_visible_units(s, units, hidden) for s in mask_seeds]))


def draw_masks(
    config: ArlowVisionConfig,
    frames: Tensor,
    mask_seeds: Sequence[int],
    hidden: int,
) -> Tensor:
    """Draws the visible merge units of a micro-batch for `MaskedAutoencoder.forward`.

    Args:
        config: the tower's configuration.
        frames: [batch, frames, height, width, 3]; only the shape is read.
        mask_seeds: each sample's own seed.
        hidden: how many merge units of a temporal step to hide (`MaeSection.hidden_unit_count`).

    Returns:
        int64 [batch, k] on the CPU.
    """
    return visible_unit_batch(mask_seeds, merge_units(patch_grid(config, frames)), hidden)


def patch_grid(config: ArlowVisionConfig, frames: Tensor) -> Grid:
    """Returns the grid (t, h, w) in patches of frames [batch, frames, height, width, 3].

    One frame is an image, which is repeated to fill a patch.
    """
    _, time, height, width, _ = frames.shape
    steps = max(1, time // config.temporal_patch_size)
    return steps, height // config.patch_size, width // config.patch_size


def merge_units(grid: Grid) -> int:
    """Returns the merge units of one temporal step of a grid."""
    return (grid[1] // MERGE) * (grid[2] // MERGE)


# Decode


class DecoderBlock(nn.Module):
    """A pre-norm transformer block over all tokens of a sample."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor, bias: Tensor) -> Tensor:
        """Maps tokens [batch, length, width] to the same shape; bias [1, heads, length, length]."""
        batch, length, width = tokens.shape
        qkv = self.qkv(self.norm1(tokens))
        parts = qkv.view(batch, length, 3, self.heads, -1).unbind(2)
        q, k, v = (part.transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        tokens = tokens + self.proj(mixed.transpose(1, 2).reshape(batch, length, width))
        tokens = tokens + self.fc2(F.gelu(self.fc1(self.norm2(tokens))))
        return tokens


class PixelDecoder(nn.Module):
    """Predicts the pixels of hidden patches from the tower's outputs on the visible ones.

    It reads the merged tokens and every DeepStack feature, so that each weight of the exported
    tower gets a gradient from the loss. Each merged token becomes its unit's 2x2 patch tokens
    again; hidden patches are one learned token; positions are fixed sines and cosines.

    Unlike He et al.'s decoder, every layer's attention falls with distance (`decoder_bias`).
    Trained with it and without it on parts of twelve photographs (144 patches, 3 blocks of
    width 64, 300 steps, three seeds), it brought the loss on parts held out from 0.650 to 0.631 on
    average, and lower with every seed; with the `tiny` preset's sizes (1,024 patches, 200 steps,
    one seed) from 0.581 to 0.534. What it does for a long run has not been measured.
    """

    def __init__(self, config: ArlowVisionConfig, width: int, depth: int, heads: int) -> None:
        """Builds the decoder for towers of `config`, `width` wide, `depth` blocks, `heads` heads.

        Linear weights are drawn as Xavier uniform (He et al.), the hidden token as normal(0, 0.02).
        """
        super().__init__()
        sources = 1 + len(config.deepstack_visual_indexes or ())
        unit = MERGE * MERGE
        self.source_norms = nn.ModuleList(
            nn.LayerNorm(config.hidden_size, eps=1e-6) for _ in range(sources)
        )
        self.source_projs = nn.ModuleList(
            nn.Linear(config.hidden_size, unit * width) for _ in range(sources)
        )
        self.mask_token = nn.Parameter(torch.empty(width))
        self.blocks = nn.ModuleList(DecoderBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        features = config.in_channels * config.temporal_patch_size * config.patch_size**2
        self.head = nn.Linear(width, features)
        self.heads = heads
        self.gradient_checkpointing = False
        nn.init.normal_(self.mask_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, merged: Tensor, deepstack: list[Tensor], view: VisibleView) -> Tensor:
        """Predicts hidden patches.

        Args:
            merged, deepstack: outputs of `encode_visible`, [batch, n / 4, hidden_size] each.
            view: the masks' geometry.

        Returns:
            [batch, m, features], in the order of `view.hidden`.
        """
        batch, count = view.visible.shape
        hidden = view.hidden.shape[1]
        # Each merged token [hidden_size] becomes its unit's four patch tokens: [batch, n, width].
        visible = sum(
            proj(norm(source))
            for norm, proj, source in zip(
                self.source_norms, self.source_projs, [merged, *deepstack], strict=True
            )
        ).view(batch, count, -1)
        width = visible.shape[-1]
        # [batch, n + m, width], row-major: positions and distances are one table for all samples.
        tokens = self.mask_token.to(visible.dtype).expand(batch, count + hidden, width)
        tokens = tokens.scatter(1, view.visible[:, :, None].expand(-1, -1, width), visible)
        tokens = tokens + position_table(view.grid, width, tokens.device, tokens.dtype)
        bias = decoder_bias(view.grid, self.heads, tokens.device, tokens.dtype)
        bias = bias.expand(batch, -1, -1, -1)
        for block in self.blocks:
            if self.gradient_checkpointing and self.training:
                tokens = checkpoint(block, tokens, bias, use_reentrant=False)
            else:
                tokens = block(tokens, bias)
        # [batch, m, width] -> [batch, m, features]: only hidden patches are predicted.
        tokens = tokens.gather(1, view.hidden[:, :, None].expand(-1, -1, width))
        predictions: Tensor = self.head(self.norm(tokens))
        return predictions


@cached_table
def decoder_bias(grid: Grid, heads: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Returns an attention bias that falls with distance, at a slope of its own in every head.

    Slopes are a geometric series from steep to nearly flat (ALiBi: Press et al., 2022,
    arXiv:2108.12409), so that a hidden patch looks at its surroundings from the first step on.

    Returns:
        [1, heads, tokens, tokens], tokens row-major.
    """
    coordinates = normalised_coordinates(*grid, device)
    slopes = STEEPEST * 2.0 ** (-torch.arange(heads, device=device) * (OCTAVES / max(1, heads - 1)))
    distance = distance_bias(coordinates, window=0.0, strength=1.0)
    return aligned_bias((slopes[:, None, None] * distance)[None], dtype)


@cached_table
def position_table(grid: Grid, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Returns fixed sine and cosine positions of a grid's tokens, row-major.

    The width is shared equally among the three axes in whole sine-cosine pairs; what is left over
    stays zero (He et al. use the same table with two axes).

    Returns:
        [t * h * w, width], computed in float32.
    """
    pairs = width // 6
    frequencies = 10_000.0 ** (-torch.arange(pairs, device=device) / pairs)
    axes = torch.meshgrid(*(torch.arange(n, device=device) for n in grid), indexing="ij")
    table = torch.zeros(grid[0] * grid[1] * grid[2], width, device=device)
    for number, axis in enumerate(axes):
        angles = axis.reshape(-1, 1) * frequencies
        start = 2 * pairs * number
        table[:, start : start + pairs] = angles.sin()
        table[:, start + pairs : start + 2 * pairs] = angles.cos()
    return table.to(dtype)


# Loss


def pixel_targets(patches: Tensor, normalized: bool) -> Tensor:
    """Returns what the decoder is to predict.

    Args:
        patches: pixels of patches [..., features].
        normalized: normalise each patch by its own mean and (unbiased) variance.

    Returns:
        float32 [..., features].
    """
    target = patches.float()
    if not normalized:
        return target
    # One pass over the pixels. `layer_norm` takes the biased variance: the unbiased is n / (n - 1)
    # of it.
    count = target.shape[-1]
    share = (count - 1) / count
    scale = target.new_full((count,), math.sqrt(share))
    return F.layer_norm(target, (count,), scale, eps=PATCH_VARIANCE_EPSILON * share)


def sample_losses(predictions: Tensor, targets: Tensor) -> Tensor:
    """Returns each sample's mean squared error over its masked patches.

    Averaging samples with one weight each gives He et al.'s loss for images of one size, and does
    not depend on which samples share a micro-batch.

    Args:
        predictions: [batch, masked patches, features], any floating dtype.
        targets: float32 [batch, masked patches, features].

    Returns:
        float32 [batch].
    """
    # In float32, whatever the predictions' dtype. A sum's gradient is a view, a mean's is not.
    squares = F.mse_loss(predictions, targets, reduction="none")
    return squares.sum(dim=(1, 2), dtype=torch.float32) / targets[0].numel()


# Mask, encode, decode, loss


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
            frames: uint8 [batch, frames, height, width, 3]; one frame is an image.
            units: visible merge units of each sample, int64 [batch, k].

        Returns:
            float32 [batch].
        """
        patches, view, merged, deepstack = self.encode(frames, units)
        predictions = self.decoder(merged, deepstack, view)
        hidden = normalize_pixels(_take(patches, view.hidden))
        return sample_losses(predictions, pixel_targets(hidden, self.normalized_pixel_loss))

    def reconstruct(self, frames: Tensor, units: Tensor) -> Reconstruction:
        """Predicts the hidden patches; arguments as in `forward`."""
        patches, view, merged, deepstack = self.encode(frames, units)
        predictions = self.decoder(merged, deepstack, view)
        return Reconstruction(predictions, normalize_pixels(patches), view)

    def encode(
        self, frames: Tensor, units: Tensor
    ) -> tuple[Tensor, VisibleView, Tensor, list[Tensor]]:
        """Runs the tower on the visible tokens; arguments as in `forward`.

        Returns:
            All patches of the input, uint8 [batch, tokens, features], and the masks' geometry, as
            in `Reconstruction`, then the merged tokens and DeepStack features as in
            `encode_visible`.
        """
        config = self.tower.config
        grid = patch_grid(config, frames)
        if frames.shape[1] == 1:
            frames = frames.expand(-1, config.temporal_patch_size, -1, -1, -1)
        # [batch, tokens, features], row-major in time, height, width
        patches = patchify(frames, config.patch_size, config.temporal_patch_size)
        view = visible_view(self.tower, grid, units)
        # [batch, n, features]: from here on the tower sees the visible tokens only
        visible = normalize_pixels(_take(patches, view.visible)).to(self.tower.dtype)
        return patches, view, *encode_visible(self.tower, visible, view)

    def gradient_checkpointing_enable(self) -> None:
        """Recomputes blocks in the backward pass instead of keeping their activations."""
        self.tower.activation_checkpointing_enable()
        self.decoder.gradient_checkpointing = True


def normalize_pixels(frames: Tensor) -> Tensor:
    """Maps uint8 pixels to float32 as the processors do: scale 1/255, mean and deviation 0.5."""
    return frames.mul(1 / 127.5).sub_(1.0)


def _take(patches: Tensor, tokens: Tensor) -> Tensor:
    return torch.gather(patches, 1, tokens[:, :, None].expand(-1, -1, patches.shape[-1]))
