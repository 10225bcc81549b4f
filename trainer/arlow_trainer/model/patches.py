"""Frames to patches and back.

A patch is `temporal_patch_size` frames of `patch_size` x `patch_size` pixels. Its features lie in
the order channel, frame, row, column; patches lie row-major in time, height, width.
"""

from __future__ import annotations

import torch
from torch import Tensor

Grid = tuple[int, int, int]


def repeat_last_frame(frames: Tensor, multiple: int) -> Tensor:
    """Frames [B, T, H, W, C], the last one repeated until T is a multiple of `multiple`."""
    missing = -frames.shape[1] % multiple
    if not missing:
        return frames
    return torch.cat([frames, frames[:, -1:].expand(-1, missing, -1, -1, -1)], dim=1)


def patchify(frames: Tensor, patch_size: int, temporal_patch_size: int) -> Tensor:
    """Cut frames [B, T, H, W, C] of any dtype into patches [B, L, C * t * p * p].

    Raises:
        ValueError: T is not a multiple of `temporal_patch_size`, or H or W of `patch_size`.
    """
    batch, time, height, width, channels = frames.shape
    if time % temporal_patch_size or height % patch_size or width % patch_size:
        raise ValueError(
            f"{time} frames of {height} x {width} pixels cannot be cut into patches of "
            f"{temporal_patch_size} frames of {patch_size} x {patch_size}: give multiples of these."
        )
    split = frames.reshape(
        batch,
        time // temporal_patch_size,
        temporal_patch_size,
        height // patch_size,
        patch_size,
        width // patch_size,
        patch_size,
        channels,
    )
    ordered = split.permute(0, 1, 3, 5, 7, 2, 4, 6)
    return ordered.reshape(batch, -1, channels * temporal_patch_size * patch_size**2)


def unpatchify(
    patches: Tensor,
    grid: Grid,
    patch_size: int,
    temporal_patch_size: int,
) -> Tensor:
    """Join patches [B, t * h * w, C * ...] of a grid (t, h, w) into frames [B, T, H, W, C].

    Raises:
        ValueError: the number of patches or of their features does not fit.
    """
    time, height, width = grid
    per_channel = temporal_patch_size * patch_size**2
    batch, length, features = patches.shape
    if length != time * height * width or features % per_channel:
        raise ValueError(
            f"{length} patches of {features} features do not fit the grid {time} x {height} x "
            f"{width} with patches of {temporal_patch_size} x {patch_size} x {patch_size}."
        )
    split = patches.reshape(
        batch, time, height, width, -1, temporal_patch_size, patch_size, patch_size
    )
    ordered = split.permute(0, 1, 5, 2, 6, 3, 7, 4)
    return ordered.reshape(
        batch, time * temporal_patch_size, height * patch_size, width * patch_size, -1
    )
