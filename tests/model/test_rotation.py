"""Queries, keys and values split and rotated in few passes, against autograd of the formula."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from arlow_trainer.model import ArlowVisionConfig, ArlowVLVisionModel, layers
from arlow_trainer.model.layers import ArlowVLBlock, rotary_tables, rotate, rotated

# What one more rounding of a product to the dtype may change, beside numbers of about 1.
TOLERANCE = {torch.float32: 2e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}

SHAPES = [
    # samples, samples of the tables, tokens, heads, width of a head
    (1, 1, 1, 1, 2),
    (2, 1, 5, 3, 6),
    (3, 3, 7, 2, 8),
    (2, 2, 64, 4, 64),
]


def tables(samples: int, length: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines of any angles, as `rope_tables` has them."""
    angles = (4 * torch.randn(samples, length, width // 2, dtype=dtype)).repeat(1, 1, 2)
    return angles.cos(), angles.sin()


def textbook(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [B, L, heads, width] with slot i turned with slot i + half."""
    first, second = x.chunk(2, dim=-1)
    return x * cos[:, :, None] + torch.cat([-second, first], dim=-1) * sin[:, :, None]


def swapped(x: Tensor) -> Tensor:
    return x.roll(x.shape[-1] // 2, dims=-1)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_outputs_and_gradients_are_the_textbooks(
    shape: tuple[int, int, int, int, int], dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    batch, samples, length, heads, width = shape
    cos, sin = tables(samples, length, width, torch.float32)
    # Not contiguous: part of a wider tensor, as of several layers' projections.
    qkv = torch.randn(batch, length, 4, heads, width).to(dtype)[:, :, :3].requires_grad_()
    exact = qkv.detach().double().requires_grad_()
    ours = rotated(qkv, *rotary_tables(cos, sin))
    query, key = (textbook(part, cos, sin) for part in exact[:, :, :2].unbind(2))
    theirs = swapped(query), swapped(key), exact[:, :, 2]
    # As attention's kernels return them: in another order in memory.
    gradients = [
        torch.randn(batch, heads, length, width).to(dtype).transpose(1, 2) for _ in range(3)
    ]
    tolerance = {"atol": TOLERANCE[dtype], "rtol": TOLERANCE[dtype]}
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.double(), other, **tolerance)
    torch.autograd.backward(ours, gradients)
    torch.autograd.backward(theirs, [gradient.double() for gradient in gradients])
    assert qkv.grad is not None
    assert exact.grad is not None
    torch.testing.assert_close(qkv.grad.double(), exact.grad, **tolerance)
    with torch.no_grad():
        for one, other in zip(rotated(qkv, *rotary_tables(cos, sin)), ours, strict=True):
            assert torch.equal(one, other)


def test_gradients_are_those_of_the_outputs() -> None:
    torch.manual_seed(0)
    first, second = rotary_tables(*tables(2, 3, 4, torch.float64))
    qkv = torch.randn(2, 3, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rotated(x, first, second), qkv)


def test_one_formula_turns_forth_and_back() -> None:
    cos, sin = tables(1, 5, 8, torch.float64)
    x = torch.randn(2, 5, 3, 8, dtype=torch.float64)
    first, second = (table.squeeze(2) for table in rotary_tables(cos, sin))
    turned = rotate(x, first, second)
    torch.testing.assert_close(turned, swapped(textbook(x, cos, sin)))
    torch.testing.assert_close(rotate(turned, first, second), x)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_block_compiled_whole_is_the_plain_one(attention: str) -> None:
    config = ArlowVisionConfig(depth=1, embed_dim=48, hidden_size=64, num_heads=2)
    config._attn_implementation = attention
    torch.manual_seed(0)
    block = ArlowVLBlock(config)
    compiled = torch.compile(block, fullgraph=True)
    first, second = rotary_tables(*tables(2, 8, 24, torch.float32))
    bias = -torch.rand(2, 1, 8, 8).expand(2, 2, 8, 8)
    results = []
    for run in (block, compiled):
        block.zero_grad()
        torch.manual_seed(1)
        x = torch.randn(2, 8, 48, requires_grad=True)
        out = run(x, first, second, bias)
        out.square().sum().backward()
        results.append([out, x.grad, *(parameter.grad for parameter in block.parameters())])
    for plain, other in zip(*results, strict=True):
        torch.testing.assert_close(other, plain, atol=1e-5, rtol=1e-4)


def test_a_block_is_exported_without_our_function() -> None:
    block = ArlowVLBlock(ArlowVisionConfig(depth=1, embed_dim=48, hidden_size=64, num_heads=2))
    inputs = (torch.randn(2, 8, 48), *rotary_tables(*tables(1, 8, 24, torch.float32)), None)
    program = torch.export.export(block, inputs)
    torch.testing.assert_close(program.module()(*inputs), block(*inputs), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_one_more_rounding_takes_a_tower_no_further_from_float32(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens and gradients of six blocks, against those with the whole rotation in float32."""
    torch.manual_seed(0)
    config = ArlowVisionConfig(depth=6, embed_dim=128, hidden_size=128, num_heads=2)
    exact = ArlowVLVisionModel(config)
    pixels, grid = torch.randn(2 * 64, 1176), torch.tensor([[1, 8, 8], [1, 8, 8]])

    def results(tower: ArlowVLVisionModel) -> Tensor:
        visual, deepstack = tower(pixels, grid)
        sum(each.float().square().mean() for each in (visual, *deepstack)).backward()
        numbers = [visual, *deepstack, *(parameter.grad for parameter in tower.parameters())]
        # Each of them weighs the same.
        return torch.cat([(each / each.norm()).double().flatten() for each in numbers])

    def in_float32(qkv: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
        return *rotate(qkv[:, :, :2], first, second).unbind(2), qkv[:, :, 2]

    ours = copy.deepcopy(exact).to(dtype)
    plain = copy.deepcopy(ours)
    wanted, found = results(exact), results(ours)
    monkeypatch.setattr(layers, "rotated", in_float32)
    assert (found - wanted).norm() < 1.05 * (results(plain) - wanted).norm()
