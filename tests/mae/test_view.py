"""The visible view of the tower: the whole tower where nothing is hidden, its share elsewhere."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from mae_cases import CASES, PATCH, Case, build_tower, draw_frames, draw_units
from torch import Tensor

from arlow_trainer.mae import (
    MaskedAutoencoder,
    PixelDecoder,
    encode_visible,
    merge_units,
    normalize_pixels,
    visible_view,
)
from arlow_trainer.mae.view import refinement_weights, unit_tokens
from arlow_trainer.model import ArlowVLVisionModel
from arlow_trainer.model.geometry import (
    distance_bias,
    grid_coordinates,
    normalised_coordinates,
    patchify,
    repeat_last_frame,
    rope_tables,
)

FEATURES = [
    {},
    {"use_deformable_attention": False},
    {"use_progressive_patches": False},
    {"deepstack_visual_indexes": []},
    {"mrope_sections": [4, 8, 12]},
]


def patches_of(case: Case) -> Tensor:
    return patchify(normalize_pixels(repeat_last_frame(draw_frames(case), 2)), PATCH, 2)


def take(values: Tensor, tokens: Tensor) -> Tensor:
    return values.gather(1, tokens[:, :, None].expand(-1, -1, values.shape[-1]))


def all_units(case: Case) -> Tensor:
    return torch.arange(merge_units(case.grid)).expand(case.batch, -1)


def encode_by_masking(
    tower: ArlowVLVisionModel, patches: Tensor, units: Tensor, case: Case
) -> tuple[Tensor, list[Tensor]]:
    """The tower on all tokens, the hidden ones cut off: masked pooling, no attention to them."""
    config, (t, h, w) = tower.config, case.grid
    shown = torch.zeros(case.batch, merge_units(case.grid))
    shown = shown.scatter(1, units, 1.0).view(-1, 1, 1, h // 2, w // 2).expand(-1, -1, t, -1, -1)
    tokens = tower.patch_embed(patches)
    grid = tokens.transpose(1, 2).unflatten(2, (t, h, w))
    up = {"size": (t, h, w), "mode": "trilinear", "align_corners": False}
    means = F.avg_pool3d(grid, (1, 2, 2)) * shown
    coarse = F.interpolate(means, **up) / F.interpolate(shown, **up).clamp(min=1e-9)
    assert tower.progressive_proj is not None
    tokens = tokens + tower.progressive_proj(coarse.flatten(2).transpose(1, 2))
    cos, sin = rope_tables(grid_coordinates(t, h, w), config.head_dim, config.mrope_sections or ())
    bias = distance_bias(
        normalised_coordinates(t, h, w),
        config.deformable_attention_window,
        config.deformable_attention_strength,
    )
    tokens_shown = F.interpolate(shown, (t, h, w)).flatten(1)
    bias = bias + torch.where(tokens_shown > 0, 0.0, -torch.inf)[:, None, None, :]
    last, taps = tower.run_blocks(tokens, cos[None], sin[None], bias)
    visible = unit_tokens(units, case.grid)
    merged, *deepstack = tower.merge(take(last, visible), [take(tap, visible) for tap in taps])
    return merged, deepstack


@pytest.mark.parametrize("fields", FEATURES, ids=lambda fields: next(iter(fields), "all"))
@pytest.mark.parametrize("case", CASES, ids=str)
@torch.no_grad()
def test_nothing_hidden_is_the_tower(case: Case, fields: dict[str, object]) -> None:
    tower = build_tower(**fields)
    patches = patches_of(case)
    view = visible_view(tower, case.grid, all_units(case))
    merged, deepstack = encode_visible(tower, take(patches, view.visible), view)
    expected = tower(patches, torch.tensor([case.grid] * case.batch))
    visual, taps = expected if isinstance(expected, tuple) else (expected, [])
    assert view.hidden.shape[1] == 0
    assert len(taps) == len(deepstack) == (0 if "deepstack_visual_indexes" in fields else 3)
    torch.testing.assert_close(merged.flatten(0, 1), visual, atol=1e-5, rtol=0)
    for ours, theirs in zip(deepstack, taps, strict=True):
        torch.testing.assert_close(ours.flatten(0, 1), theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", CASES, ids=str)
@torch.no_grad()
def test_masked_is_the_tower_without_the_hidden_tokens(case: Case) -> None:
    """Positions, distances and the coarser scale are those of the full grid."""
    tower = build_tower()
    patches, units = patches_of(case), draw_units(case)
    view = visible_view(tower, case.grid, units)
    merged, deepstack = encode_visible(tower, take(patches, view.visible), view)
    expected, taps = encode_by_masking(tower, patches, units, case)
    torch.testing.assert_close(merged, expected, atol=1e-5, rtol=0)
    for ours, theirs in zip(deepstack, taps, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_visible_and_hidden_tokens_are_all_tokens(case: Case) -> None:
    view = visible_view(build_tower(depth=1), case.grid, draw_units(case))
    t, h, w = case.grid
    for visible, hidden in zip(view.visible, view.hidden, strict=True):
        assert sorted([*visible.tolist(), *hidden.tolist()]) == list(range(t * h * w))
        # Tubes: the same places at every temporal step.
        steps = hidden.view(t, -1) - torch.arange(t)[:, None] * h * w
        assert bool((steps == steps[0]).all())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_refinement_weights_sum_to_one(case: Case) -> None:
    weights = refinement_weights(draw_units(case), case.grid)
    visible = draw_units(case).shape[1]
    assert weights.shape == (case.batch, 1, 4 * visible, visible)
    assert bool((weights >= 0).all())
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_refinement_of_all_is_trilinear_interpolation(case: Case) -> None:
    t, h, w = case.grid
    units = all_units(case)
    pooled = torch.randn(case.batch, 5, t, h // 2, w // 2)
    expected = F.interpolate(pooled, (t, h, w), mode="trilinear", align_corners=False)
    ours = refinement_weights(units, case.grid) @ pooled.flatten(3).permute(0, 2, 3, 1)
    in_order = take(expected.flatten(2).transpose(1, 2), unit_tokens(units, case.grid))
    torch.testing.assert_close(ours.flatten(1, 2), in_order, atol=1e-6, rtol=0)


def test_merge_units_of_another_size_are_refused() -> None:
    tower = build_tower(depth=1, deepstack_visual_indexes=[], spatial_merge_size=4)
    decoder = PixelDecoder(tower.config, width=32, depth=1, heads=2)
    with pytest.raises(ValueError, match=r"spatial_merge_size is 4: .* units of 2 x 2"):
        MaskedAutoencoder(tower, decoder, normalized_pixel_loss=True)
