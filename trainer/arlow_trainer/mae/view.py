"""The visible-token view of the tower: what a masked sample looks like from inside.

Visible tokens are ordered by temporal step, then merge unit, then row and column in the unit, so
that merging is a reshape. Attention does not care about order; positions travel with the tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from arlow_trainer.model import ArlowVLVisionModel
from arlow_trainer.model.geometry import (
    aligned_bias,
    distance_bias,
    grid_coordinates,
    normalised_coordinates,
    rope_tables,
)

from .masks import hidden_units

MERGE = 2


@dataclass(frozen=True)
class VisibleView:
    """Geometry of a micro-batch's masks on one grid; computed once, used by every layer.

    Attributes:
        grid: (t, h, w) in patches.
        visible: row-major token indexes of visible tokens, int64 [batch, n].
        hidden: row-major token indexes of hidden tokens, int64 [batch, m].
        cos, sin: rotary tables of the visible tokens, float32 [batch, n, head_dim].
        bias: distance bias [batch, 1, n, n] in the tower's dtype, or None.
        refinement: weights [batch, 1, n / t, visible units] that interpolate the means of a step's
            visible units at its visible tokens, or None.
    """

    grid: tuple[int, int, int]
    visible: Tensor
    hidden: Tensor
    cos: Tensor
    sin: Tensor
    bias: Tensor | None
    refinement: Tensor | None


def unit_tokens(units: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Returns row-major token indexes of merge units shown at every temporal step.

    Args:
        units: int64 [batch, k], row-major unit indexes of one temporal step.
        grid: (t, h, w) in patches.

    Returns:
        int64 [batch, t * k * 4].
    """
    t, h, w = grid
    device = units.device
    row, column = units // (w // MERGE), units % (w // MERGE)
    corner = MERGE * (row * w + column)
    inside = torch.arange(MERGE, device=device)
    offsets = (inside[:, None] * w + inside[None, :]).reshape(-1)
    step = corner[:, :, None] + offsets
    frames = torch.arange(t, device=device) * (h * w)
    return (frames[None, :, None, None] + step[:, None]).reshape(units.shape[0], -1)


def axis_interpolation(coarse: int, device: torch.device) -> Tensor:
    """Returns linear interpolation from `coarse` cells to twice as many, as F.interpolate does
    with align_corners=False: float32 [2 * coarse, coarse]."""
    fine = torch.arange(MERGE * coarse, device=device)
    source = ((fine + 0.5) / MERGE - 0.5).clamp(min=0)
    lower = source.floor().long()
    upper = (lower + 1).clamp(max=coarse - 1)
    share = source - lower
    weights = torch.zeros(MERGE * coarse, coarse, device=device)
    weights.scatter_add_(1, lower[:, None], (1 - share)[:, None])
    weights.scatter_add_(1, upper[:, None], share[:, None])
    return weights


def refinement_weights(units: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Returns the masked, normalised interpolation of progressive patches.

    Pooling and upsampling count visible units only, so that no pixel of a hidden patch reaches a
    visible token; with nothing hidden this is the tower's own pooling and trilinear upsampling.

    Args:
        units: visible units [batch, k].
        grid: (t, h, w) in patches.

    Returns:
        float32 [batch, 1, 4 k, k]; rows sum to 1.
    """
    _, h, w = grid
    tokens = unit_tokens(units, (1, h, w))
    token_row, token_column = tokens // w, tokens % w
    unit_row, unit_column = units // (w // MERGE), units % (w // MERGE)
    rows = axis_interpolation(h // MERGE, units.device)
    columns = axis_interpolation(w // MERGE, units.device)
    weights = (
        rows[token_row[:, :, None], unit_row[:, None, :]]
        * columns[token_column[:, :, None], unit_column[:, None, :]]
    )
    return (weights / weights.sum(dim=-1, keepdim=True))[:, None]


def visible_view(
    tower: ArlowVLVisionModel, grid: tuple[int, int, int], units: Tensor
) -> VisibleView:
    """Returns the geometry of a micro-batch of masks.

    Visible tokens keep the rotary positions and distances of the full grid.

    Args:
        tower: the tower whose positions and bias are wanted.
        grid: (t, h, w) in patches, h and w even.
        units: visible units of each sample, int64 [batch, k], on the tower's device.
    """
    config, device = tower.config, units.device
    t, h, w = grid
    visible = unit_tokens(units, grid)
    hidden = unit_tokens(hidden_units(units, (h // MERGE) * (w // MERGE)), grid)
    cos, sin = rope_tables(
        grid_coordinates(t, h, w, device),
        config.head_dim,
        config.mrope_sections or (),
    )
    bias = None
    if config.use_deformable_attention:
        places = normalised_coordinates(t, h, w, device)[visible]
        distance = distance_bias(
            places, config.deformable_attention_window, config.deformable_attention_strength
        )
        bias = aligned_bias(distance[:, None], tower.dtype)
    refinement = refinement_weights(units, grid) if config.use_progressive_patches else None
    return VisibleView(grid, visible, hidden, cos[visible], sin[visible], bias, refinement)


def encode_visible(
    tower: ArlowVLVisionModel, patches: Tensor, view: VisibleView
) -> tuple[Tensor, list[Tensor]]:
    """Runs the tower on visible tokens only.

    Args:
        tower: the tower.
        patches: pixels of the visible patches in the view's order, [batch, n, features].
        view: the masks' geometry.

    Returns:
        The merged tokens [batch, n / 4, hidden_size] in the order of the visible units (all units
        of the first temporal step first), and the DeepStack features of the same shape.
    """
    tokens = tower.patch_embed(patches)
    batch, count, width = tokens.shape
    if view.refinement is not None and tower.progressive_proj is not None:
        t = view.grid[0]
        means = tokens.view(batch, t, -1, MERGE * MERGE, width).mean(dim=3)
        refined = view.refinement.to(means.dtype) @ means
        tokens = tokens + tower.progressive_proj(refined.view(batch, count, width))
    tokens, taps = tower.run_blocks(tokens, view.cos, view.sin, view.bias)
    merged, *deepstack = tower.merge(tokens, taps)
    return merged, deepstack
