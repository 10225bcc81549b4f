"""Attention in a band of a clip's steps, against attention to all tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mae_cases import Case, build_autoencoder, draw_frames, draw_units
from torch import Tensor

import arlow_trainer.mae.view
from arlow_trainer.engine.attention import kernel, set_gpu_switches
from arlow_trainer.mae import visible_unit_batch, visible_view
from arlow_trainer.mae.view import band_bias, grid_bias, unit_tokens, visible_bias
from arlow_trainer.model import ArlowVisionConfig
from arlow_trainer.model.layers import ArlowVLAttention, rotary_tables, rotated, rotated_blocks
from arlow_trainer.plan.attention import Kernel
from arlow_trainer.plan.band import Band, attention_band
from support.gpu import needs_gpu

# Blocks of one, two and three steps that see one, two and no steps on either side.
BANDS = [
    (Case(16, 16, 16), 0.25, Band(16, 16)),
    (Case(16, 16, 16), 0.25, Band(32, 16)),
    (Case(16, 12, 8, 0.5, 1), 0.1, Band(12, 0)),
    (Case(10, 8, 16, 0.5), 0.25, Band(16, 16)),
    (Case(24, 8, 8, 0.5), 0.2, Band(24, 16)),
]


def gradients(case: Case, window: float, dtype: torch.dtype) -> dict[str, Tensor]:
    """The losses and all gradients of a small autoencoder."""
    module = build_autoencoder(
        deformable_attention_window=window, deformable_attention_strength=4.0
    ).to(dtype)
    losses = module(draw_frames(case), draw_units(case))
    losses.sum().backward()
    found = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return found | {"losses": losses.detach()}


@pytest.mark.parametrize(("case", "window", "band"), BANDS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_band_trains_as_all_pairs_do(
    case: Case, window: float, band: Band, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arlow_trainer.mae.view, "attention_band", lambda *_: None)
    expected = gradients(case, window, dtype)
    monkeypatch.setattr(arlow_trainer.mae.view, "attention_band", lambda *_: band)
    found = gradients(case, window, dtype)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        # A key's bias has a gradient that is nothing but rounding. Losses are in float32.
        scale = max(1e-3, float(expected[name].abs().max()))
        close = 1e-6 if dtype == torch.float64 else 1e-4
        torch.testing.assert_close(value / scale, expected[name] / scale, rtol=0, atol=close)


def test_the_bias_of_a_band_is_part_of_the_whole() -> None:
    case, band = Case(16, 16, 16), Band(32, 16)
    table = grid_bias(case.grid, 0.25, 4.0, torch.device("cpu"), torch.float32)
    visible = unit_tokens(draw_units(case), case.grid)
    whole = visible_bias(table, visible)[:, 0]
    parts = band_bias(table, visible, band)[:, 0].unflatten(0, (case.batch, -1))
    held = torch.zeros_like(whole, dtype=torch.bool)
    for number in range(parts.shape[1]):
        rows = slice(number * band.rows, (number + 1) * band.rows)
        first = number * band.rows - band.margin
        inside = slice(max(0, first), min(whole.shape[1], first + band.span))
        places = slice(inside.start - first, inside.stop - first)
        assert torch.equal(parts[:, number, :, places], whole[:, rows, inside])
        held[:, rows, inside] = True
        beyond = parts[:, number].clone()
        beyond[..., places] = -1e4
        assert float(beyond.max()) < -400
    # What is not computed weighs nothing.
    assert float(whole[~held].max()) < -400


@pytest.mark.parametrize("band", [Band(4, 4), Band(8, 4), Band(4, 0), Band(12, 4)], ids=str)
@pytest.mark.parametrize("compiled", [False, True])
def test_blocks_and_their_gradients(
    band: Band, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against slices of the whole, of zeros at either end."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    qkv = draw(2, 24, 3, 2, 8).requires_grad_()
    tables = rotary_tables(draw(2, 24, 8), draw(2, 24, 8))
    query, key, value = rotated(qkv, *tables)
    starts = range(0, 24, band.rows)
    ends = [torch.zeros(2, band.margin, 2, 8, dtype=torch.float64)]
    key, value = (torch.cat([*ends, part, *ends], dim=1) for part in (key, value))
    expected = [
        torch.stack([part[:, start : start + width] for start in starts], dim=1).flatten(0, 1)
        for part, width in ((query, band.rows), (key, band.span), (value, band.span))
    ]
    weights = [draw(*part.shape) for part in expected]
    [wanted] = torch.autograd.grad(expected, qkv, weights)
    with monkeypatch.context() as patch:
        # The form that a compiler sees.
        patch.setattr(torch.compiler, "is_compiling", lambda: compiled)
        found = rotated_blocks(qkv, *tables, band.rows, band.span)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    [gradient] = torch.autograd.grad(found, qkv, weights)
    torch.testing.assert_close(gradient, wanted)


def attended(attention: ArlowVLAttention, x: Tensor, bias: Tensor) -> list[Tensor]:
    """Attention's output, and its gradients."""
    length, width = x.shape[1], attention.head_dim
    angles = torch.arange(length * width, device=x.device).view(1, length, width).float()
    x = x.detach().requires_grad_()
    out = attention(x, *rotary_tables(angles.cos(), angles.sin()), bias)
    attention.zero_grad()
    (out.float().square().mean() * 1e4).backward()
    assert x.grad is not None
    return [out.detach(), x.grad, *(p.grad.clone() for p in attention.parameters())]


def biases(heads: int, batch: int, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor]:
    """The bias of 8 steps of 64 tokens, whole and in a band."""
    grid, band = (8, 16, 16), attention_band(8, 64, 0.25, 4.0)
    assert band == Band(128, 64)
    table = grid_bias(grid, 0.25, 4.0, torch.device(device), dtype)
    visible = unit_tokens(visible_unit_batch(range(batch), 64, 48).to(device), grid)
    whole, part = visible_bias(table, visible), band_bias(table, visible, band)
    return whole.expand(-1, heads, -1, -1), part.expand(-1, heads, -1, -1)


def test_a_compiled_band_is_the_plain_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.manual_seed(0)
    attention = ArlowVLAttention(ArlowVisionConfig(embed_dim=32, num_heads=2, depth=1))
    x = torch.randn(1, 512, 32)
    whole, part = biases(2, 1, torch.float32, "cpu")
    expected = attended(attention, x, whole)
    for found in (
        attended(attention, x, part),
        attended(torch.compile(attention, fullgraph=True, dynamic=False), x, part),
    ):
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@needs_gpu
@pytest.mark.parametrize("name", ["memory-efficient", "cudnn"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_kernels_of_a_gpu_take_a_band(name: Kernel, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    config = ArlowVisionConfig(embed_dim=256, num_heads=4, depth=1)
    attention = ArlowVLAttention(config).to("cuda", dtype)
    x = torch.randn(3, 512, 256, device="cuda", dtype=dtype)
    whole, part = biases(4, 3, dtype, "cuda")
    set_gpu_switches()
    with kernel("memory-efficient"):
        expected = attended(attention, x, whole)
    with kernel(name):
        found = attended(attention, x, part)
    for ours, theirs in zip(found, expected, strict=True):
        assert bool(ours.isfinite().all())
        scale = float(theirs.float().abs().max())
        torch.testing.assert_close(ours / scale, theirs / scale, rtol=0, atol=0.02)


def test_rows_of_the_bias_are_read_without_a_copy() -> None:
    """A span that is no multiple of eight is padded in memory."""
    module = build_autoencoder(deformable_attention_window=0.25, deformable_attention_strength=4.0)
    case = Case(16, 12, 8, 0.5)
    view = visible_view(module.tower, case.grid, draw_units(case))
    assert view.bias is not None
    assert view.bias.shape[-1] % 8 != 0
    assert view.bias.stride(-2) % 8 == 0
