"""Targets and loss of masked autoencoding (He et al., 2022, arXiv:2111.06377), in float32."""

from __future__ import annotations

import torch
from torch import Tensor

PATCH_VARIANCE_EPSILON = 1e-6


def pixel_targets(patches: Tensor, normalized: bool) -> Tensor:
    """Returns what the decoder is to predict.

    Args:
        patches: pixels of patches [..., features].
        normalized: normalise each patch by its own mean and (unbiased) variance.

    Returns:
        float32 [..., features].
    """
    target = patches.float()
    if normalized:
        mean = target.mean(dim=-1, keepdim=True)
        variance = target.var(dim=-1, keepdim=True)
        target = (target - mean) / (variance + PATCH_VARIANCE_EPSILON).sqrt()
    return target


def sample_losses(predictions: Tensor, targets: Tensor) -> Tensor:
    """Returns each sample's mean squared error over its masked patches.

    Averaging samples with one weight each gives He et al.'s loss for images of one size, and does
    not depend on which samples share a micro-batch.

    Args:
        predictions: [batch, masked patches, features], any floating dtype.
        targets: float32 [batch, masked patches, features].

    Returns:
        float32 [batch].
    """
    return torch.square(predictions.float() - targets).mean(dim=(1, 2))
