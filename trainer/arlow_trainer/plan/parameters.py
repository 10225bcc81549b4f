"""How many parameters the tower and the decoder have."""

from __future__ import annotations

from arlow_trainer.config import MaeSection, ModelSection, TrainingSection

CHANNELS = 3


def patch_features(model: ModelSection) -> int:
    """Returns the numbers of one patch: channels x frames x rows x columns."""
    return CHANNELS * model.temporal_patch_size * model.patch_size**2


def mlp_width(model: ModelSection) -> int:
    """Returns the inner width of a block's MLP."""
    return int(model.embed_dim * model.mlp_ratio)


def unit_width(model: ModelSection) -> int:
    """Returns the width of a merge unit's tokens side by side."""
    return model.embed_dim * model.spatial_merge_size**2


def deepstack_taps(model: ModelSection) -> int:
    """Returns how many blocks feed a DeepStack merger."""
    if model.deepstack_visual_indexes is not None:
        return len(model.deepstack_visual_indexes)
    depth = model.depth
    return len({depth // 4, depth // 2, depth - 4}) if depth >= 6 else 0


def tower_parameters(model: ModelSection) -> int:
    """Returns the parameters of `ArlowVLVisionModel`."""
    width, unit = model.embed_dim, unit_width(model)
    merger = _norm(unit) + _linear(unit, unit) + _linear(unit, model.hidden_size)
    return (
        patch_features(model) * width
        + (_linear(width, width) if model.use_progressive_patches else 0)
        + model.depth * _block(width, mlp_width(model))
        + (1 + deepstack_taps(model)) * merger
    )


def decoder_parameters(model: ModelSection, mae: MaeSection) -> int:
    """Returns the parameters of `PixelDecoder` behind a tower."""
    width, hidden = mae.decoder_dim, model.hidden_size
    source = _norm(hidden) + _linear(hidden, model.spatial_merge_size**2 * width)
    return (
        (1 + deepstack_taps(model)) * source
        + width  # the token that stands for hidden patches
        + mae.decoder_depth * _block(width, 4 * width)
        + _norm(width)
        + _linear(width, patch_features(model))
    )


def total_parameters(training: TrainingSection) -> int:
    """Returns the parameters that are trained: tower and decoder."""
    return tower_parameters(training.model) + decoder_parameters(training.model, training.mae)


def _block(width: int, inner: int) -> int:
    attention = _linear(width, 3 * width) + _linear(width, width)
    return 2 * _norm(width) + attention + _linear(width, inner) + _linear(inner, width)


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _norm(width: int) -> int:
    return 2 * width
