"""The layers of the Arlow vision tower.

Names and numbers follow the public `ArlowVLVisionModel`, as in `modeling_arlow`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_arlow import ArlowVisionConfig

NORM_EPS = 1e-6


class ArlowVLPatchEmbed(nn.Module):
    """Linear map of patches, its weight kept in the shape of the equivalent convolution."""

    def __init__(self, config: ArlowVisionConfig) -> None:
        super().__init__()
        kernel = (config.temporal_patch_size, config.patch_size, config.patch_size)
        self.proj = nn.Conv3d(config.in_channels, config.embed_dim, kernel, kernel, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Patches [..., C * t * p * p] to [..., embed_dim], in the weight's dtype."""
        weight = self.proj.weight
        return F.linear(features.to(weight.dtype), weight.flatten(1))


class ArlowVLPatchMerger(nn.Module):
    """Merge the tokens of a merge unit and map them to the language model's width."""

    def __init__(self, config: ArlowVisionConfig) -> None:
        super().__init__()
        width = config.embed_dim * config.spatial_merge_size**2
        self.ln_q = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, config.hidden_size)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Units [..., units, m * m * E] to [..., units, hidden_size].

        Tokens [B, L, E] in merge order, each unit's m * m of them consecutive, will do as well.
        """
        units = tokens.reshape(*tokens.shape[:-2], -1, self.ln_q.normalized_shape[0])
        merged: Tensor = self.mlp(self.ln_q(units))
        return merged


class ArlowVLAttention(nn.Module):
    """Self-attention with rotary positions and an additive bias."""

    def __init__(self, config: ArlowVisionConfig) -> None:
        super().__init__()
        self.config = config
        self.num_heads = config.num_heads
        self.head_dim = config.head_dim
        self.qkv = nn.Linear(config.embed_dim, 3 * config.embed_dim)
        self.proj = nn.Linear(config.embed_dim, config.embed_dim)

    def forward(self, x: Tensor, first: Tensor, second: Tensor, bias: Tensor | None) -> Tensor:
        """Tokens [B, L, E], `rotary_tables`, bias [B, heads, L, L] or None.

        A bias [B * blocks, heads, rows, span] with fewer rows than tokens is of a band: each block
        of that many tokens sees its own and as many on either side as its span leaves.
        """
        batch, length, _ = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.num_heads, self.head_dim)
        if bias is None or bias.shape[-2] == length:
            parts = rotated(qkv, first, second)
        else:
            parts = rotated_blocks(qkv, first, second, *bias.shape[-2:])
        query, key, value = (part.transpose(1, 2) for part in parts)
        eager = getattr(self.config, "_attn_implementation", None) == "eager"
        attend = _attend if eager else F.scaled_dot_product_attention
        out = attend(query, key, value, attn_mask=bias)
        projected: Tensor = self.proj(out.transpose(1, 2).reshape(batch, length, -1))
        return projected


def _attend(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None) -> Tensor:
    """`F.scaled_dot_product_attention` step by step, its weights in float32."""
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    if attn_mask is not None:
        scores = scores + attn_mask
    out: Tensor = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype) @ value
    return out


def rotary_tables(cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """The tables of `rotate` for angles' [B or 1, L, head_dim] cosines and sines (`rope_tables`).

    Each is [B or 1, L, 1, 1, 2, head_dim / 2].
    """
    cos, sin = cos.chunk(2, dim=-1)[0], sin.chunk(2, dim=-1)[0]
    first, second = torch.stack([sin, cos], dim=-2), torch.stack([cos, -sin], dim=-2)
    return first[:, :, None, None], second[:, :, None, None]


def rotate(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Turn slot i of the last axis with slot i + half by the tables' angles, and swap the halves.

    Attention does not see the swap, as queries and keys share it. With it, the matrix is its own
    transpose, [[sin, cos], [cos, -sin]]: the same tables turn the gradients.
    """
    halves = x.unflatten(-1, (2, -1))
    turned: Tensor = halves[..., :1, :] * first + halves[..., 1:, :] * second
    return turned.flatten(-2).to(x.dtype)


def rotated(qkv: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys, rotated, and values, [B, L, heads, head_dim] each.

    Args:
        qkv: [B, L, 3, heads, head_dim].
        first, second: `rotary_tables`.
    """
    if torch.compiler.is_compiling():
        # A compiler joins the passes over the numbers itself.
        query, key = rotate(qkv[:, :, :2], first, second).unbind(2)
        return query, key, qkv[:, :, 2]
    query, key, value = _Rotated.apply(qkv, first, second)  # type: ignore[no-untyped-call]
    return query, key, value


class _Rotated(torch.autograd.Function):
    """`rotated` in the fewest passes over memory that torch's own operations allow.

    The sum of two products is two operations, neither of which copies: the first result is rounded
    to the dtype of `qkv`. The gradients are written where `qkv`'s is wanted.
    """

    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, first: Tensor, second: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(first, second)
        turned = torch.empty_like(qkv[:, :, :2], memory_format=torch.contiguous_format)
        _rotate_into(turned, qkv[:, :, :2], first, second)
        return turned[:, :, 0], turned[:, :, 1], qkv[:, :, 2]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, None, None]:
        first, second = ctx.saved_tensors
        batch, length, heads, width = value.shape
        gradient = value.new_empty(batch, length, 3, heads, width)
        _rotate_into(gradient[:, :, :1], query[:, :, None], first, second)
        _rotate_into(gradient[:, :, 1:2], key[:, :, None], first, second)
        gradient[:, :, 2].copy_(value)
        return gradient, None, None


def rotated_blocks(
    qkv: Tensor, first: Tensor, second: Tensor, rows: int, span: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`rotated` for attention within a band of tokens.

    Args:
        qkv, first, second: as of `rotated`.
        rows: tokens of a block; divides L.
        span: tokens that a block sees, its own in their middle. Beyond the ends they are zeros.

    Returns:
        Queries [B * blocks, rows, heads, head_dim]; keys and values [B * blocks, span, heads,
        head_dim].
    """
    margin = (span - rows) // 2
    if torch.compiler.is_compiling():
        query, key, value = rotated(qkv, first, second)
        query, key, value = (part.unflatten(1, (-1, rows)) for part in (query, key, value))
        return query.flatten(0, 1), _spans(key, margin), _spans(value, margin)
    apply = _RotatedBlocks.apply
    query, key, value = apply(qkv, first, second, rows, margin)  # type: ignore[no-untyped-call]
    return query, key, value


def _spans(blocks: Tensor, margin: int) -> Tensor:
    """Blocks [B, n, rows, ...] with their neighbours' tokens: [B * n, rows + 2 * margin, ...]."""
    rows = blocks.shape[2]
    end = blocks.new_zeros(blocks.shape[0], 1, margin, *blocks.shape[3:])
    before = torch.cat([end, blocks[:, :-1, rows - margin :]], dim=1)
    after = torch.cat([blocks[:, 1:, :margin], end], dim=1)
    return torch.cat([before, blocks, after], dim=2).flatten(0, 1)


class _RotatedBlocks(torch.autograd.Function):
    """`rotated_blocks` in few passes: what neighbours share is copied, and summed, at its place."""

    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, first: Tensor, second: Tensor, rows: int, margin: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(first, second)
        ctx.rows, ctx.margin = rows, margin
        queries, keys, values = qkv.unflatten(1, (-1, rows)).unbind(3)
        first, second = (table.unflatten(1, (-1, rows)).squeeze(3) for table in (first, second))
        batch, blocks, _, heads, width = queries.shape
        query = qkv.new_empty(batch, blocks, rows, heads, width)
        _rotate_into(query, queries, first, second)
        both = qkv.new_empty(2, batch, blocks, rows + 2 * margin, heads, width)
        own = both[:, :, :, margin : margin + rows]
        _rotate_into(own[0], keys, first, second)
        own[1].copy_(values)
        both[:, :, 1:, :margin] = own[:, :, :-1, rows - margin :]
        both[:, :, :-1, margin + rows :] = own[:, :, 1:, :margin]
        both[:, :, 0, :margin] = 0
        both[:, :, -1, margin + rows :] = 0
        return query.flatten(0, 1), both[0].flatten(0, 1), both[1].flatten(0, 1)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor
    ) -> tuple[Tensor, None, None, None, None]:
        first, second = (
            table.unflatten(1, (-1, ctx.rows)).squeeze(3) for table in ctx.saved_tensors
        )
        blocks = first.shape[1]
        query, key, value = (part.unflatten(0, (-1, blocks)) for part in (query, key, value))
        batch, _, rows, heads, width = query.shape
        gradient = value.new_empty(batch, blocks, rows, 3, heads, width)
        _rotate_into(gradient[:, :, :, 0], query, first, second)
        _rotate_into(
            gradient[:, :, :, 1],
            _sum_into(torch.empty_like(query), key, ctx.margin),
            first,
            second,
        )
        _sum_into(gradient[:, :, :, 2], value, ctx.margin)
        return gradient.flatten(1, 2), None, None, None, None


def _sum_into(out: Tensor, spans: Tensor, margin: int) -> Tensor:
    """What spans [B, n, rows + 2 * margin, ...] hold of each token, summed: [B, n, rows, ...].

    It maps the gradients of `_spans`.
    """
    rows = out.shape[2]
    out.copy_(spans[:, :, margin : margin + rows])
    # An augmented assignment to a slice would copy it once more.
    out[:, :-1, rows - margin :].add_(spans[:, 1:, :margin])
    out[:, 1:, :margin].add_(spans[:, :-1, margin + rows :])
    return out


def _rotate_into(out: Tensor, x: Tensor, first: Tensor, second: Tensor) -> None:
    out, halves = out.unflatten(-1, (2, -1)), x.unflatten(-1, (2, -1))
    torch.mul(halves[..., :1, :], first, out=out)
    out.addcmul_(halves[..., 1:, :], second)


class ArlowVLBlock(GradientCheckpointingLayer):
    """Pre-norm transformer block."""

    def __init__(self, config: ArlowVisionConfig) -> None:
        super().__init__()
        hidden = int(config.embed_dim * config.mlp_ratio)
        self.norm1 = nn.LayerNorm(config.embed_dim, eps=NORM_EPS)
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=NORM_EPS)
        self.attn = ArlowVLAttention(config)
        self.fc1 = nn.Linear(config.embed_dim, hidden)
        self.act = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(hidden, config.embed_dim)

    def forward(self, x: Tensor, first: Tensor, second: Tensor, bias: Tensor | None) -> Tensor:
        """Arguments and shapes of `ArlowVLAttention.forward`; returns tokens [B, L, E]."""
        x = x + self.attn(self.norm1(x), first, second, bias)
        x = x + self.fc2(self.act(self.fc1(self.norm2(x))))
        return x
