"""Which merge units a sample shows: pure functions of the sample's mask seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def hidden_count(units: int, mask_ratio: float) -> int:
    """Returns how many of `units` merge units a mask hides."""
    return round(units * mask_ratio)


def draw_visible_units(mask_seed: int, units: int, mask_ratio: float) -> np.ndarray:
    """Draws the merge units of one temporal step that stay visible.

    The same units are visible at every temporal step of a clip (tube masking: Tong et al., 2022,
    arXiv:2203.12602), so that an answer cannot be copied from the next frame.

    Args:
        mask_seed: the sample's own seed, non-negative.
        units: merge units of one temporal step, in row-major order.
        mask_ratio: share of units to hide.

    Returns:
        Sorted int64 unit indexes [visible].
    """
    generator = np.random.Generator(np.random.Philox(mask_seed))
    visible = units - hidden_count(units, mask_ratio)
    return np.sort(generator.permutation(units)[:visible]).astype(np.int64)


def visible_unit_batch(mask_seeds: Sequence[int], units: int, mask_ratio: float) -> Tensor:
    """Draws the visible units of a micro-batch of samples of one grid.

    Returns:
        int64 [batch, visible] on the CPU.
    """
    drawn = [draw_visible_units(seed, units, mask_ratio) for seed in mask_seeds]
    return torch.from_numpy(np.stack(drawn))


def hidden_units(visible: Tensor, units: int) -> Tensor:
    """Returns the sorted complement [batch, hidden] of visible units [batch, visible]."""
    shown = torch.zeros(visible.shape[0], units, dtype=torch.bool, device=visible.device)
    shown.scatter_(1, visible, True)
    # A stable sort of the flags lists hidden units first, in order, with a size known on the host.
    order = torch.argsort(shown.to(torch.uint8), dim=1, stable=True)
    return order[:, : units - visible.shape[1]]
