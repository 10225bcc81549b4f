"""Frames to patches, and what depends on a grid of patches alone: positions, bias, order.

A patch is `temporal_patch_size` frames of `patch_size` x `patch_size` pixels; its features are in
the order channel, frame, row, column. A grid (t, h, w) counts patches before merging; its tokens
are row-major in time, height, width unless a function says otherwise. All functions are pure and
work on any device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
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


ROPE_THETA = 100_000.0
# Beyond the window the bias falls by this many strengths more: the attention weight is then 0.
OUTSIDE_WINDOW = 100.0
# Rounding of float32 coordinates: so far past the window a token still counts as at its edge,
# which is inside; else pairs as far apart as each other would fall on both sides.
WINDOW_EDGE = 1e-6
# Rows of an attention bias start at multiples of this many elements, or SDPA's memory-efficient
# kernel copies the bias once for every head.
BIAS_ALIGNMENT = 8


def grid_coordinates(t: int, h: int, w: int, device: torch.device | None = None) -> Tensor:
    """Time, height and width index of every token: int64 [t * h * w, 3]."""
    axes = [torch.arange(steps, device=device) for steps in (t, h, w)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)


def normalised_coordinates(t: int, h: int, w: int, device: torch.device | None = None) -> Tensor:
    """Coordinates evenly spaced in [0, 1] per axis, 0 on one of one step: float32 [L, 3]."""
    axes = [torch.linspace(0, 1, steps, device=device) for steps in (t, h, w)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)


def in_merge_order(tokens: Tensor, grid: Grid, size: int) -> Tensor:
    """Row-major tokens [..., t * h * w, E] with each merge unit's size * size brought together.

    Units lie row-major in time, height, width; so do the tokens of a unit.
    """
    t, h, w = grid
    units = tokens.unflatten(-2, (t, h // size, size, w // size, size))
    return torch.flatten(units.transpose(-4, -3), -6, -2)


def merge_order(t: int, h: int, w: int, size: int, device: torch.device | None = None) -> Tensor:
    """The permutation of `in_merge_order`, int64 [t * h * w]: where each token came from."""
    indexes = torch.arange(t * h * w, device=device)
    return in_merge_order(indexes.unsqueeze(-1), (t, h, w), size).squeeze(-1)


def rope_tables(coords: Tensor, head_dim: int, sections: Sequence[int]) -> tuple[Tensor, Tensor]:
    """cos and sin, float32 [..., L, head_dim], of the tokens' angles under interleaved M-RoPE.

    Rotary positions (Su et al., 2021, arXiv:2104.09864) of several axes: M-RoPE of Qwen2-VL (Wang
    et al., 2024, arXiv:2409.12191), its axes interleaved slot by slot as in the public tower.

    Args:
        coords: integer time, height and width of each token [..., L, 3].
        head_dim: width of a head; slot i of its first half turns with slot i of the second.
        sections: shares of time, height and width. Slots 1, 4, 7, ... below 3 * sections[1] turn
            with the height, slots 2, 5, 8, ... below 3 * sections[2] with the width, the rest with
            the time.
    """
    slots = torch.arange(head_dim // 2, device=coords.device)
    frequencies = ROPE_THETA ** (slots.to(torch.float32) * (-2.0 / head_dim))
    limits = torch.where(slots % 3 == 1, 3 * sections[1], 3 * sections[2])
    axis = torch.where(slots < limits, slots % 3, 0)
    angles = coords[..., axis].to(torch.float32) * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def distance_bias(coords: Tensor, window: float, strength: float) -> Tensor:
    """Bias of the attention scores by the distance of two tokens: float32 [..., L, L].

    A linear penalty as in ALiBi (Press et al., 2022, arXiv:2108.12409), by distance in the grid,
    with the cut-off of the public tower's "deformable" attention.

    Args:
        coords: normalised coordinates, float32 [..., L, 3].
        window: distance from which on (exclusive) the bias falls by 100 strengths more; 0: never.
        strength: bias per unit of euclidean distance, downwards.
    """
    squares = None
    # Axis by axis: a matrix product would round by far more than `WINDOW_EDGE`, and differences of
    # all axes at once would need a table [L, L, 3].
    for values in coords.unbind(-1):
        difference = values.unsqueeze(-1) - values.unsqueeze(-2)
        square = difference.square_()
        squares = square if squares is None else squares.add_(square)
    assert squares is not None
    distance = squares.sqrt_()
    outside = distance > window + WINDOW_EDGE if window > 0 else None
    bias = distance.mul_(-strength)
    return bias if outside is None else bias.sub_(outside * (OUTSIDE_WINDOW * strength))


def aligned_bias(bias: Tensor, dtype: torch.dtype) -> Tensor:
    """The bias [..., L, L] in `dtype`, in memory whose rows SDPA's kernels read without a copy."""
    length = bias.shape[-1]
    padded = length + -length % BIAS_ALIGNMENT
    out = bias.new_empty(*bias.shape[:-1], padded, dtype=dtype)[..., :length]
    return out.copy_(bias)


def coarser_scale(tokens: Tensor) -> Tensor:
    """Each token's neighbourhood at half the resolution: [..., t, h, w, E] -> the same shape.

    The mean over 2 x 2 tokens of a frame (fewer at an odd edge), interpolated linearly back to the
    full grid. Both are separable and linear, hence one small matrix an axis: no change of layout,
    every dtype, deterministic gradients.
    """
    *_, h, w, _ = tokens.shape
    across = torch.matmul(_coarsening(w, tokens), tokens)
    down = torch.matmul(_coarsening(h, tokens), across.flatten(-2))
    return down.view(tokens.shape)


def _coarsening(steps: int, like: Tensor) -> Tensor:
    """Matrix [steps, steps] of pooling by 2 and interpolating back along one axis."""
    identity = torch.eye(steps, device=like.device)
    pooled = F.avg_pool1d(identity, 2, stride=2, ceil_mode=True)
    restored = F.interpolate(pooled.unsqueeze(0), size=steps, mode="linear", align_corners=False)
    return restored.squeeze(0).T.to(like.dtype)
