"""Torch's switches for attention and matrix products on a GPU: the one place that sets them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from arlow_trainer.config import Modality, Precision, TrainingSection
from arlow_trainer.config.errors import ConfigError
from arlow_trainer.plan.attention import Kernel, kernels_by_modality

# Numbers of a head that the fused kernels' loads take at once, in bytes.
_ALIGNMENT_BYTES = 16
_BYTES: dict[Precision, int] = {"fp16": 2, "bf16": 2, "fp32": 4}


def set_gpu_switches() -> None:
    """Chooses what attention and products may use on a GPU, for the whole process.

    Attention: fused kernels only. The math kernel, to which torch would fall back without a word,
    keeps score matrices: gigabytes. cuDNN's is used only inside `kernel`, since its backward pass
    gives NaN at some lengths (`plan.attention`). Products: partial sums in float32; those of weight
    gradients under a loss scale would overflow in half precision.
    """
    torch.backends.cuda.enable_math_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False


@contextmanager
def kernel(name: Kernel) -> Iterator[None]:
    """Allows cuDNN's attention within the block, forward and backward, if `name` is cuDNN.

    Where it is allowed, torch prefers it on the GPUs that `plan.attention` names.
    """
    if name != "cudnn":
        yield
        return
    torch.backends.cuda.enable_cudnn_sdp(True)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(False)


def attention_kernels(training: TrainingSection, device: torch.device) -> dict[Modality, Kernel]:
    """Returns the kernel that a device takes for the attention of each modality."""
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    return kernels_by_modality(training, capability)


def check_heads(training: TrainingSection, precision: Precision) -> None:
    """Refuses heads that no fused kernel can read on a GPU. Raises ConfigError."""
    multiple = _ALIGNMENT_BYTES // _BYTES[precision]
    model, mae = training.model, training.mae
    for width, heads, names in (
        (model.embed_dim, model.num_heads, "model.embedDim / model.numHeads"),
        (mae.decoder_dim, mae.decoder_heads, "mae.decoderDim / mae.decoderHeads"),
    ):
        if (width // heads) % multiple:
            raise ConfigError(
                f"spec.training: {names} is {width // heads}; on a GPU in {precision} it must be a "
                f"multiple of {multiple}, or no fused attention kernel can be used"
            )
