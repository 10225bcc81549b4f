"""The layers of the Arlow vision tower.

Names and numbers follow the public `ArlowVLVisionModel`, as in `modeling_arlow`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
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

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, bias: Tensor | None) -> Tensor:
        """Tokens [B, L, E], tables [B or 1, L, 1, 1, head_dim], bias [B, heads, L, L] or None."""
        batch, length, _ = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.num_heads, self.head_dim)
        # Split, not indexed: the gradients of the parts are joined by one copy.
        turning, value = qkv.split([2, 1], dim=2)
        query, key = rotate(turning, cos, sin).unbind(2)
        eager = getattr(self.config, "_attn_implementation", None) == "eager"
        attend = _attend if eager else F.scaled_dot_product_attention
        out = attend(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.squeeze(2).transpose(1, 2),
            attn_mask=bias,
        )
        projected: Tensor = self.proj(out.transpose(1, 2).reshape(batch, length, -1))
        return projected


def _attend(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None) -> Tensor:
    """`F.scaled_dot_product_attention` step by step, its weights in float32."""
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    if attn_mask is not None:
        scores = scores + attn_mask
    out: Tensor = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype) @ value
    return out


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn slot i of the last axis with slot i + half by the tables' angles, in float32.

    `sin` carries the rotation's sign: its first half is negated (`signed`).
    """
    turned = x.float()
    swapped = turned.roll(x.shape[-1] // 2, dims=-1)
    return torch.addcmul(turned * cos, swapped, sin).to(x.dtype)


def signed(sin: Tensor) -> Tensor:
    """The table of sines with its first half negated, as `rotate` takes it."""
    first, second = sin.chunk(2, dim=-1)
    return torch.cat([-first, second], dim=-1)


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

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, bias: Tensor | None) -> Tensor:
        """Arguments and shapes of `ArlowVLAttention.forward`; returns tokens [B, L, E]."""
        x = x + self.attn(self.norm1(x), cos, sin, bias)
        x = x + self.fc2(self.act(self.fc1(self.norm2(x))))
        return x
