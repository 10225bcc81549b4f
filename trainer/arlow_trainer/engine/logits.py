"""The largest attention logit and activation: they grow before half precision overflows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from arlow_trainer.mae import MaskedAutoencoder
from arlow_trainer.model.layers import ArlowVLAttention, rotated


@torch.no_grad()
def largest_numbers(
    module: MaskedAutoencoder, frames: Tensor, units: Tensor
) -> tuple[float, float]:
    """Runs the tower on the visible tokens and returns the largest |q.k| / sqrt(head_dim) of all
    its layers and heads, and of all pairs of a sample's tokens; and the largest absolute number
    that a block adds up to in the residual stream.

    Without the distance bias, which is known and only lowers scores; the decoder does not run.
    Waits for the device.

    Args:
        module: the autoencoder.
        frames, units: as `MaskedAutoencoder.forward` takes them; one sample is enough.
    """
    largest: list[Tensor] = []

    def watch(attention: nn.Module, inputs: tuple[Any, ...]) -> None:
        assert isinstance(attention, ArlowVLAttention)
        x, first, second, _ = inputs
        batch, length, _ = x.shape
        heads = (batch, length, 3, attention.num_heads, attention.head_dim)
        query, key, _ = rotated(attention.qkv(x).view(heads), first, second)
        scores = query.transpose(1, 2).float() @ key.permute(0, 2, 3, 1).float()
        largest.append(scores.abs().amax() * attention.head_dim**-0.5)

    residual: list[Tensor] = []

    def watch_block(_: nn.Module, __: object, output: Tensor) -> None:
        residual.append(output.abs().amax().float())

    layers = [layer for layer in module.tower.modules() if isinstance(layer, ArlowVLAttention)]
    handles = [layer.register_forward_pre_hook(watch) for layer in layers]
    handles += [block.register_forward_hook(watch_block) for block in module.tower.blocks]
    try:
        module.encode(frames, units)
    finally:
        for handle in handles:
            handle.remove()
    return float(torch.stack(largest).max()), float(torch.stack(residual).max())
