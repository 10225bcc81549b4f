"""The visible-token view of the tower: its blocks run on the visible tokens of a sample only.

Visible tokens are ordered by temporal step, then merge unit, then row and column in the unit, so
that merging is a reshape. Attention does not care about order; positions travel with the tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from arlow_trainer.model import ArlowVLVisionModel
from arlow_trainer.model.geometry import (
    BIAS_ALIGNMENT,
    distance_bias,
    grid_coordinates,
    normalised_coordinates,
    rope_tables,
)
from arlow_trainer.plan.band import Band, attention_band

P = ParamSpec("P")
T = TypeVar("T")

# A run has two grids; the rest is for what else a process looks at, at other sizes. The least
# recently used is dropped.
MAX_TABLES = 4

_held: ContextVar[dict[Hashable, Any] | None] = ContextVar("held", default=None)


@contextmanager
def holding_tables(held: dict[Hashable, Any]) -> Iterator[None]:
    """Keeps in `held` all cached tables that are used within it, and takes from there what is
    there: for as long as `held` lives, no other grid's tables take their place."""
    token = _held.set(held)
    try:
        yield
    finally:
        _held.reset(token)


def cached_table(build: Callable[P, T]) -> Callable[P, T]:
    """Caches a table that depends on a grid alone, for the last `MAX_TABLES` sets of arguments.

    The arguments are hashable and name all that the table depends on, device and dtype included.
    What is returned is shared: do not change it in place. Tables are not module buffers: a
    checkpoint never holds them, and a converted or moved module gets those of its own dtype and
    device.
    """

    @functools.lru_cache(MAX_TABLES)
    def once(*args: Hashable, **kwargs: Hashable) -> T:
        # Autograd refuses tensors made in inference mode, and training may be next to use them.
        with torch.inference_mode(False):
            return build(*args, **kwargs)  # type: ignore[arg-type]

    @functools.wraps(build)
    def table(*args: Hashable, **kwargs: Hashable) -> T:
        held = _held.get()
        if held is None:
            return once(*args, **kwargs)
        key = (build, args, tuple(sorted(kwargs.items())))
        if key not in held:
            held[key] = once(*args, **kwargs)
        return cast(T, held[key])

    vars(table)["cache_clear"] = once.cache_clear
    return cast(Callable[P, T], table)


MERGE = 2


def hidden_units(visible: Tensor, units: int) -> Tensor:
    """Returns the sorted complement [batch, hidden] of visible units [batch, visible]."""
    shown = torch.zeros(visible.shape[0], units, dtype=torch.bool, device=visible.device)
    shown.scatter_(1, visible, True)
    # A stable sort of the flags lists hidden units first, in order, with a size known on the host.
    order = torch.argsort(shown.to(torch.uint8), dim=1, stable=True)
    return order[:, : units - visible.shape[1]]


@dataclass(frozen=True)
class VisibleView:
    """Geometry of a micro-batch's masks on one grid; computed once, used by every layer.

    Attributes:
        grid: (t, h, w) in patches.
        visible: row-major token indexes of visible tokens, int64 [batch, n].
        hidden: row-major token indexes of hidden tokens, int64 [batch, m].
        cos, sin: rotary tables of the visible tokens, float32 [batch, n, head_dim].
        bias: distance bias [batch, 1, n, n] in the tower's dtype, of a band where the window is
            narrow in time [batch * n / rows, 1, rows, span], or None.
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
    corner = MERGE * (row * w + column)  # [batch, k]: the token at each unit's upper left
    inside = torch.arange(MERGE, device=device)
    offsets = (inside[:, None] * w + inside[None, :]).reshape(-1)  # [4]
    step = corner[:, :, None] + offsets  # [batch, k, 4]
    frames = torch.arange(t, device=device) * (h * w)  # [t]
    # [batch, t, k, 4]: the same units at every temporal step
    return (frames[None, :, None, None] + step[:, None]).reshape(units.shape[0], -1)


@cached_table
def grid_rope(
    grid: tuple[int, int, int], head_dim: int, sections: tuple[int, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Returns the rotary tables of a grid's tokens, row-major: float32 [t * h * w, head_dim]."""
    return rope_tables(grid_coordinates(*grid, device), head_dim, sections)


@cached_table
def grid_bias(
    grid: tuple[int, int, int],
    window: float,
    strength: float,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Returns the distance bias of a grid's tokens, row-major: [t * h * w, t * h * w]."""
    return distance_bias(normalised_coordinates(*grid, device), window, strength).to(dtype)


@cached_table
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
    # Separable: the weight of a unit at a token is that of its row times that of its column.
    weights = (
        rows[token_row[:, :, None], unit_row[:, None, :]]
        * columns[token_column[:, :, None], unit_column[:, None, :]]
    )
    return (weights / weights.sum(dim=-1, keepdim=True))[:, None]


def visible_view(
    tower: ArlowVLVisionModel, grid: tuple[int, int, int], units: Tensor
) -> VisibleView:
    """Returns the geometry of a micro-batch of masks.

    Visible tokens keep the rotary positions and distances of the full grid: each mask picks its
    own from the grid's tables.

    Args:
        tower: the tower whose positions and bias are wanted.
        grid: (t, h, w) in patches, h and w even.
        units: visible units of each sample, int64 [batch, k], on the tower's device.
    """
    config, device = tower.config, units.device
    _, h, w = grid
    visible = unit_tokens(units, grid)
    hidden = unit_tokens(hidden_units(units, (h // MERGE) * (w // MERGE)), grid)
    head_dim = config.embed_dim // config.num_heads
    cos, sin = grid_rope(grid, head_dim, tuple(config.mrope_sections or ()), device)
    bias = None
    if config.use_deformable_attention:
        window, strength = (
            config.deformable_attention_window,
            config.deformable_attention_strength,
        )
        table = grid_bias(grid, window, strength, device, tower.dtype)
        band = attention_band(grid[0], visible.shape[1] // grid[0], window, strength)
        bias = visible_bias(table, visible) if band is None else band_bias(table, visible, band)
    refinement = refinement_weights(units, grid) if config.use_progressive_patches else None
    return VisibleView(grid, visible, hidden, cos[visible], sin[visible], bias, refinement)


def visible_bias(table: Tensor, visible: Tensor) -> Tensor:
    """Returns the visible tokens' part of a bias, with rows that SDPA's kernels read without a
    copy (`aligned_bias`).

    Args:
        table: bias of all tokens of a grid [tokens, tokens].
        visible: token indexes int64 [batch, n].

    Returns:
        [batch, 1, n, n], each row followed by unused numbers up to a multiple of 8.
    """
    count = visible.shape[1]
    padded = F.pad(visible, (0, -count % BIAS_ALIGNMENT))
    return table[visible[:, :, None], padded[:, None, :]][:, None, :, :count]


def band_bias(table: Tensor, visible: Tensor, band: Band) -> Tensor:
    """Returns the visible tokens' part of a bias within a band.

    Args:
        table: bias of all tokens of a grid [tokens, tokens].
        visible: token indexes int64 [batch, n], n a multiple of the band's rows.
        band: which pairs are computed.

    Returns:
        [batch * n / rows, 1, rows, span], laid out as `visible_bias`' and the lowest of the table
        where a span goes beyond the ends.
    """
    count = visible.shape[1]
    starts = torch.arange(0, count, band.rows, device=visible.device)
    padded = band.span + -band.span % BIAS_ALIGNMENT
    places = starts[:, None] + torch.arange(padded, device=visible.device) - band.margin
    beyond = (places < 0) | (places >= count)
    queries = visible.unflatten(1, (-1, band.rows))
    keys = visible[:, places.clamp(0, count - 1)]
    bias = table[queries[..., None], keys[:, :, None, :]]
    bias = torch.where(beyond[:, None], table.amin(), bias)
    return bias.flatten(0, 1)[:, None, :, : band.span]


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
    tokens = tower.patch_embed(patches)  # [batch, n, features] -> [batch, n, width]
    batch, count, width = tokens.shape
    if view.refinement is not None and tower.progressive_proj is not None:
        # The mean of each visible unit: [batch, t, k, width], k = n / (4 t) units a temporal step.
        means = tokens.view(batch, view.grid[0], -1, MERGE * MERGE, width).mean(dim=3)
        # [batch, 1, 4 k, k] @ [batch, t, k, width] -> [batch, t, 4 k, width]
        refined = view.refinement.to(means.dtype) @ means
        tokens = tokens + tower.progressive_proj(refined.view(batch, count, width))
    tokens, taps = tower.run_blocks(tokens, view.cos, view.sin, view.bias)
    # Four tokens of a unit lie side by side: [batch, n, width] -> [batch, n / 4, hidden_size].
    merged, *deepstack = tower.merge(tokens, taps)
    return merged, deepstack
