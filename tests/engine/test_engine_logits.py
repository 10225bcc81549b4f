"""The largest attention logit against plain products of single queries and keys."""

from __future__ import annotations

import math

import pytest
import torch
from engine_cases import samples, training

from arlow_trainer.engine import build_autoencoder
from arlow_trainer.engine.logits import largest_numbers
from arlow_trainer.mae import visible_unit_batch, visible_view


def turned(vector: list[float], cos: list[float], sin: list[float]) -> list[float]:
    """A query or key at its position: slot i turns with slot i + half."""
    half = len(vector) // 2
    first = [vector[i] * cos[i] - vector[i + half] * sin[i] for i in range(half)]
    second = [vector[i + half] * cos[i] + vector[i] * sin[i] for i in range(half)]
    return first + second


@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize("largest", [0, 5], ids=["first layer", "last layer"])
@torch.no_grad()
def test_the_largest_logit_is_that_of_some_query_and_key(largest: int, frames: int) -> None:
    module = build_autoencoder(training())
    tower, head_dim = module.tower, module.tower.config.head_dim
    width = tower.config.embed_dim
    tower.blocks[largest].attn.qkv.weight *= 6
    normed: list[torch.Tensor] = []
    for block in tower.blocks:
        block.norm1.register_forward_hook(lambda *call: normed.append(call[-1]))
    module.decoder.register_forward_hook(lambda *_: pytest.fail("the decoder ran"))
    pixels, units = samples(2, frames).frames, visible_unit_batch([3, 4], 16, 12)
    found = largest_numbers(module, pixels, units)[0]
    assert len(normed) == 6

    view = visible_view(tower, (max(1, frames // 2), 8, 8), units)
    logits = []
    for layer, block in enumerate(tower.blocks):
        parts = block.attn.qkv(normed[layer]).double()
        for sample in range(2):
            cos, sin = view.cos[sample].tolist(), view.sin[sample].tolist()
            for start in range(0, width, head_dim):
                queries, keys = (
                    [
                        turned(token, *angles)
                        for token, *angles in zip(
                            parts[sample, :, first : first + head_dim].tolist(),
                            cos,
                            sin,
                            strict=True,
                        )
                    ]
                    for first in (start, width + start)
                )
                logits += [
                    abs(sum(a * b for a, b in zip(query, key, strict=True))) / math.sqrt(head_dim)
                    for query in queries
                    for key in keys
                ]
    assert found == pytest.approx(max(logits), rel=1e-4)


@torch.no_grad()
def test_the_largest_activation_is_a_blocks_output() -> None:
    module = build_autoencoder(training())
    module.tower.blocks[3].fc2.bias[5] = -1000.0
    pixels, units = samples(2).frames, visible_unit_batch([3, 4], 16, 12)
    assert largest_numbers(module, pixels, units)[1] == pytest.approx(1000, abs=20)


def test_nothing_is_left_behind() -> None:
    module = build_autoencoder(training())
    pixels, units = samples(1).frames, visible_unit_batch([3], 16, 12)
    first = largest_numbers(module, pixels, units)[0]
    assert first == largest_numbers(module, pixels, units)[0] > 0
    assert not any(part._forward_pre_hooks for part in module.modules())
    assert all(parameter.grad is None for parameter in module.parameters())
