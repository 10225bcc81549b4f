"""Which of torch's attention kernels a device may take: the one rule of the plan and of the run.

cuDNN's backward pass gives NaN for queries where there is a mask, a row's logits all lie below
about -89, and the length is 64 modulo 128 (pytorch#196678; reproduced on an H200 with cuDNN 9.19).
It is the fastest kernel on Hopper for clips, so it stays for other lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from arlow_trainer.plan.tokens import Tokens

Kernel = Literal["cudnn", "memory-efficient"]

CUDNN_FROM = (9, 0)
"""Compute capability from which on cuDNN's attention is used."""
_BROKEN, _MODULUS = 64, 128


def attention_lengths(tokens: Tokens) -> tuple[int, int]:
    """Returns the lengths that attention is computed over: the tower's and the decoder's."""
    return tokens.visible, tokens.total


def attention_kernel(capability: tuple[int, int], lengths: Sequence[int]) -> Kernel:
    """Returns the kernel for a micro-batch whose attention is over these lengths.

    Both are for half precision; in float32 the memory-efficient kernel is all there is.
    """
    sound = all(length % _MODULUS != _BROKEN for length in lengths)
    return "cudnn" if capability >= CUDNN_FROM and sound else "memory-efficient"
