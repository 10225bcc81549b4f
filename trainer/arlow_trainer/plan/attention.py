"""Which of torch's attention kernels a device takes: the one rule of the plan and of the run.

cuDNN's backward pass gives NaN for queries where there is a bias, a row's logits all lie below
about -89, and the length is 64 modulo 128 (pytorch#196678; reproduced on an H200 with cuDNN 9.19).
It is the fastest kernel on Hopper for clips, so it stays for other lengths. The memory-efficient
kernel takes every bias on every GPU. FlexAttention was as fast as cuDNN for clips, and slower than
the memory-efficient kernel for images; its backward pass needs more shared memory than GPUs before
Ampere have, and it runs compiled alone: it is not used.
"""

from __future__ import annotations

from typing import Literal

from arlow_trainer.config import Modality, Precision, TrainingSection
from arlow_trainer.plan.tokens import Tokens, tokens_per_clip, tokens_per_image, tower_band

Kernel = Literal["cudnn", "memory-efficient", "cpu"]
"""`cpu` is torch's own for CPUs, which keeps no score matrix either."""

CUDNN_FROM = (9, 0)
"""Compute capability from which on torch prefers cuDNN's attention where it may take it."""
_BROKEN, _MODULUS = 64, 128


def attention_kernel(
    queries: int,
    keys: int,
    capability: tuple[int, int] | None,
    precision: Precision,
    biased: bool,
) -> Kernel:
    """Returns the fastest kernel that is right for attention of so many queries to so many keys.

    Args:
        queries, keys: tokens. The broken length was met where both are the same; here either is
            enough.
        capability: the GPU's compute capability; None for a CPU.
        precision: of queries, keys, values and bias.
        biased: whether scores have a bias added.
    """
    if capability is None:
        return "cpu"
    # In float32 the memory-efficient kernel is all there is.
    if capability < CUDNN_FROM or precision == "fp32":
        return "memory-efficient"
    broken = biased and _BROKEN in (queries % _MODULUS, keys % _MODULUS)
    return "memory-efficient" if broken else "cudnn"


def micro_batch_kernel(
    training: TrainingSection, tokens: Tokens, capability: tuple[int, int] | None
) -> Kernel:
    """Returns the kernel of a micro-batch of such samples: the one of its tower and its decoder.

    Args:
        training: the run's section.
        tokens: a sample's.
        capability: the GPU's compute capability; None for a CPU.
    """
    # A GPU trains in the run's own; for a CPU it makes no difference.
    precision = training.precision
    biased = training.model.use_deformable_attention
    band = tower_band(training, tokens)
    tower = attention_kernel(band.rows, band.span, capability, precision, biased)
    # The decoder's always has a bias. Torch is told once for both what it may take.
    decoder = attention_kernel(tokens.total, tokens.total, capability, precision, True)
    return tower if tower == decoder else "memory-efficient"


def kernels_by_modality(
    training: TrainingSection, capability: tuple[int, int] | None
) -> dict[Modality, Kernel]:
    """Returns the kernel of each modality's micro-batches; arguments as `micro_batch_kernel`'s."""
    return {
        "image": micro_batch_kernel(training, tokens_per_image(training), capability),
        "video": micro_batch_kernel(training, tokens_per_clip(training), capability),
    }
