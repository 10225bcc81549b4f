"""Masked autoencoding on the tower: masks, the visible view, decoder, targets and loss."""

from arlow_trainer.mae.autoencoder import (
    PATCH_VARIANCE_EPSILON,
    MaskedAutoencoder,
    PixelDecoder,
    Reconstruction,
    draw_masks,
    draw_visible_units,
    merge_units,
    normalize_pixels,
    patch_grid,
    pixel_targets,
    sample_losses,
    visible_unit_batch,
)
from arlow_trainer.mae.view import VisibleView, encode_visible, hidden_units, visible_view

__all__ = [
    "PATCH_VARIANCE_EPSILON",
    "MaskedAutoencoder",
    "PixelDecoder",
    "Reconstruction",
    "VisibleView",
    "draw_masks",
    "draw_visible_units",
    "encode_visible",
    "hidden_units",
    "merge_units",
    "normalize_pixels",
    "patch_grid",
    "pixel_targets",
    "sample_losses",
    "visible_unit_batch",
    "visible_view",
]
