"""How many tokens a sample has, and how many of them the tower sees."""

from __future__ import annotations

from dataclasses import dataclass

from arlow_trainer.config import TrainingSection
from arlow_trainer.plan.band import Band, attention_band


@dataclass(frozen=True)
class Tokens:
    """Patches of one sample.

    Attributes:
        steps: temporal steps of the grid; 1 for an image.
        units: merge units of one step.
        visible_units: merge units of one step that the tower sees.
        unit: patches of a merge unit.
    """

    steps: int
    units: int
    visible_units: int
    unit: int

    @property
    def total(self) -> int:
        """All tokens: what the decoder reads."""
        return self.steps * self.units * self.unit

    @property
    def visible(self) -> int:
        """Tokens that the tower reads."""
        return self.steps * self.visible_units * self.unit

    @property
    def hidden(self) -> int:
        """Tokens whose pixels are predicted."""
        return self.total - self.visible


def tower_band(training: TrainingSection, tokens: Tokens) -> Band:
    """Returns which pairs of a sample's tokens the tower's attention computes: all, or a band."""
    model, seen = training.model, tokens.visible
    band = None
    if model.use_deformable_attention:
        band = attention_band(
            tokens.steps,
            seen // tokens.steps,
            model.deformable_attention_window,
            model.deformable_attention_strength,
        )
    return band or Band(seen, 0)


def tokens_per_image(training: TrainingSection) -> Tokens:
    """Returns the tokens of an image."""
    return _tokens(training, steps=1)


def tokens_per_clip(training: TrainingSection) -> Tokens:
    """Returns the tokens of a video clip; its mask is the same at every temporal step."""
    return _tokens(training, training.data.clip_frames // training.model.temporal_patch_size)


def _tokens(training: TrainingSection, steps: int) -> Tokens:
    model = training.model
    side = training.data.image_size // (model.patch_size * model.spatial_merge_size)
    hidden = training.mae.hidden_unit_count(side**2)
    return Tokens(steps, side**2, side**2 - hidden, model.spatial_merge_size**2)
