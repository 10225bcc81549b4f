"""Positions, bias, order and coarser scale against plain computations."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from arlow_trainer.model.geometry import (
    aligned_bias,
    coarser_scale,
    distance_bias,
    grid_coordinates,
    in_merge_order,
    merge_order,
    normalised_coordinates,
    rope_tables,
)

GRIDS = [(1, 2, 2), (1, 4, 6), (3, 2, 4), (2, 6, 2)]


@pytest.mark.parametrize("grid", GRIDS)
def test_coordinates_are_row_major(grid: tuple[int, int, int]) -> None:
    coords = grid_coordinates(*grid)
    assert coords.dtype is torch.int64
    assert coords.tolist() == [list(c) for c in itertools.product(*map(range, grid))]
    expected = coords / torch.tensor([max(1, steps - 1) for steps in grid])
    torch.testing.assert_close(normalised_coordinates(*grid), expected)


@pytest.mark.parametrize("grid", GRIDS)
def test_merge_order_brings_units_together(grid: tuple[int, int, int]) -> None:
    t, h, w = grid
    expected = [
        (frame * h + 2 * row + dy) * w + 2 * column + dx
        for frame in range(t)
        for row in range(h // 2)
        for column in range(w // 2)
        for dy in range(2)
        for dx in range(2)
    ]
    order = merge_order(*grid, 2)
    assert order.tolist() == expected
    tokens = torch.randn(3, t * h * w, 5)
    assert torch.equal(in_merge_order(tokens, grid, 2), tokens[:, order])


@pytest.mark.parametrize("sections", [[8, 8, 8], [4, 10, 10], [24, 0, 0], [2, 2, 20]])
def test_rope_tables_slot_by_slot(sections: list[int]) -> None:
    head_dim, coords = 24, torch.tensor([[5, 2, 3], [0, 7, 1]])
    cos, sin = rope_tables(coords, head_dim, sections)
    assert cos.shape == sin.shape == (2, head_dim)
    assert cos.dtype is torch.float32
    for token, (time, row, column) in enumerate(coords.tolist()):
        for slot in range(head_dim // 2):
            place = time
            if slot % 3 == 1 and slot < 3 * sections[1]:
                place = row
            if slot % 3 == 2 and slot < 3 * sections[2]:
                place = column
            angle = place * 100_000 ** (-2 * slot / head_dim)
            for half in (slot, slot + head_dim // 2):
                assert cos[token, half].item() == pytest.approx(math.cos(angle), abs=1e-6)
                assert sin[token, half].item() == pytest.approx(math.sin(angle), abs=1e-6)


@pytest.mark.parametrize("window", [0.0, 0.25, 0.55])
def test_distance_bias_pair_by_pair(window: float) -> None:
    coords = normalised_coordinates(3, 4, 6)
    bias = distance_bias(coords, window, 4.0)
    assert bias.shape == (72, 72)
    for i, j in itertools.product(range(0, 72, 7), range(72)):
        distance = math.dist(coords[i].tolist(), coords[j].tolist())
        expected = -4 * distance - (400 if 0 < window < distance else 0)
        assert bias[i, j].item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("steps", "window", "apart"), [(13, 0.25, 3), (23, 0.5, 11), (49, 0.25, 12)]
)
def test_pairs_as_far_apart_as_the_window_are_all_inside(
    steps: int, window: float, apart: int
) -> None:
    bias = distance_bias(normalised_coordinates(1, 1, steps), window, 4.0)
    assert bool((bias.diagonal(apart) > -100).all())
    assert bool((bias.diagonal(apart + 1) < -100).all())


def test_distance_bias_of_a_batch_is_each_items_own() -> None:
    coords = torch.rand(3, 9, 3)
    kept = coords.clone()
    batch = distance_bias(coords, 0.25, 4.0)
    for item, own in zip(batch, coords, strict=True):
        assert torch.equal(item, distance_bias(own, 0.25, 4.0))
    assert torch.equal(coords, kept)


@pytest.mark.parametrize("length", [1, 7, 8, 15])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_aligned_bias_has_aligned_rows(length: int, dtype: torch.dtype) -> None:
    bias = torch.randn(2, 1, length, length)
    aligned = aligned_bias(bias, dtype)
    assert aligned.stride(-1) == 1
    assert all(stride % 8 == 0 for stride in aligned.stride()[:-1])
    assert torch.equal(aligned, bias.to(dtype))


@pytest.mark.parametrize("grid", [*GRIDS, (2, 3, 5)])
def test_coarser_scale_is_pooling_and_interpolation(grid: tuple[int, int, int]) -> None:
    tokens = torch.randn(2, *grid, 5, dtype=torch.float64)
    volume = tokens.movedim(-1, 1)
    pooled = nn.AvgPool3d((1, 2, 2), stride=(1, 2, 2), ceil_mode=True)(volume)
    restored = nn.functional.interpolate(pooled, size=grid, mode="trilinear", align_corners=False)
    actual = coarser_scale(tokens)
    torch.testing.assert_close(actual, restored.movedim(1, -1), atol=1e-6, rtol=1e-6)
