"""Floating-point operations of masked autoencoding, counted on the tokens that are computed.

A multiply-add is two operations. Only matrix products count, as usual for model FLOPs utilisation
(Chowdhery et al., 2022, arXiv:2204.02311, appendix B): the backward pass is twice the forward
pass, and what gradient checkpointing computes again does not count. Of attention, the pairs that
are computed count: what lies beyond the tower's window is left out (`plan.band`).
"""

from __future__ import annotations

from dataclasses import dataclass

from arlow_trainer.config import TrainingSection
from arlow_trainer.plan.parameters import deepstack_taps, mlp_width, patch_features, unit_width
from arlow_trainer.plan.tokens import Tokens, tokens_per_clip, tokens_per_image, tower_band

FORWARD_AND_BACKWARD = 3


@dataclass(frozen=True)
class ForwardFlops:
    """Operations of one sample's forward pass."""

    patches: int
    blocks: int
    mergers: int
    decoder: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.patches + self.blocks + self.mergers + self.decoder


def forward_flops(training: TrainingSection, tokens: Tokens) -> ForwardFlops:
    """Returns the operations of the forward pass of one sample with these tokens."""
    model, mae = training.model, training.mae
    seen, width = tokens.visible, model.embed_dim
    patches = _product(seen, patch_features(model), width)
    if model.use_progressive_patches:
        # Each step's visible tokens are interpolated between the means of its visible units.
        step = _product(tokens.visible_units * tokens.unit, tokens.visible_units, width)
        patches += tokens.steps * step + _product(seen, width, width)
    unit, units = unit_width(model), tokens.steps * tokens.visible_units
    merger = _product(units, unit, unit) + _product(units, unit, model.hidden_size)
    outputs = 1 + deepstack_taps(model)
    whole = tokens.total
    decoder = (
        outputs * _product(units, model.hidden_size, tokens.unit * mae.decoder_dim)
        + mae.decoder_depth * _block(whole, mae.decoder_dim, 4 * mae.decoder_dim, whole)
        + _product(tokens.hidden, mae.decoder_dim, patch_features(model))
    )
    block = _block(seen, width, mlp_width(model), tower_band(training, tokens).span)
    return ForwardFlops(patches, model.depth * block, outputs * merger, decoder)


def attention_flops(training: TrainingSection, tokens: Tokens) -> int:
    """Returns what of `forward_flops` are the products of queries, keys and values."""
    model, mae = training.model, training.mae
    span = tower_band(training, tokens).span
    return model.depth * _attention(tokens.visible, model.embed_dim, span) + (
        mae.decoder_depth * _attention(tokens.total, mae.decoder_dim, tokens.total)
    )


def image_training_flops(training: TrainingSection) -> int:
    """Returns the operations of training on one image, forward and backward."""
    return FORWARD_AND_BACKWARD * forward_flops(training, tokens_per_image(training)).total


def clip_training_flops(training: TrainingSection) -> int:
    """Returns the operations of training on one video clip, forward and backward."""
    return FORWARD_AND_BACKWARD * forward_flops(training, tokens_per_clip(training)).total


def _block(tokens: int, width: int, inner: int, keys: int) -> int:
    projections = _product(tokens, width, 4 * width)
    return projections + _attention(tokens, width, keys) + 2 * _product(tokens, width, inner)


def _attention(tokens: int, width: int, keys: int) -> int:
    return 2 * _product(tokens, width, keys)


def _product(rows: int, inner: int, columns: int) -> int:
    return 2 * rows * inner * columns
