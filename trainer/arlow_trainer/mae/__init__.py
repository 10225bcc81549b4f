"""Masked autoencoding on the tower: masks, the visible view, decoder, targets and loss."""

from .autoencoder import MaskedAutoencoder, Reconstruction, merge_units, normalize_pixels
from .decoder import PixelDecoder
from .loss import PATCH_VARIANCE_EPSILON, pixel_targets, sample_losses
from .masks import draw_visible_units, hidden_units, visible_unit_batch
from .view import VisibleView, encode_visible, visible_view

__all__ = [
    "PATCH_VARIANCE_EPSILON",
    "MaskedAutoencoder",
    "PixelDecoder",
    "Reconstruction",
    "VisibleView",
    "draw_visible_units",
    "encode_visible",
    "hidden_units",
    "merge_units",
    "normalize_pixels",
    "pixel_targets",
    "sample_losses",
    "visible_unit_batch",
    "visible_view",
]
