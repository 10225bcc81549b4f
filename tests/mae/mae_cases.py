"""A small tower with every feature, its autoencoder, and micro-batches of many shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from arlow_trainer.mae import MaskedAutoencoder, PixelDecoder, merge_units, visible_unit_batch
from arlow_trainer.model import ArlowVisionConfig, ArlowVLVisionModel

PATCH, DEPTH, UNIT = 2, 2, 4  # pixels, frames, pixels of a merge unit's side


@dataclass(frozen=True)
class Case:
    """A micro-batch's shape: frames a sample, its sides in pixels, and the mask ratio."""

    frames: int
    height: int
    width: int
    mask_ratio: float = 0.75
    batch: int = 2

    @property
    def grid(self) -> tuple[int, int, int]:
        """(t, h, w) in patches."""
        return max(1, self.frames // DEPTH), self.height // PATCH, self.width // PATCH

    def __str__(self) -> str:
        kind = "image" if self.frames == 1 else f"video{self.frames}"
        return f"{kind}-{self.height}x{self.width}-{self.mask_ratio}"


IMAGE = Case(1, 16, 16)
VIDEO = Case(4, 16, 16)
CASES = [
    IMAGE,
    VIDEO,
    Case(1, 8, 24),
    Case(1, 24, 16, 0.5),
    Case(1, 16, 16, 0.9),
    Case(2, 8, 16, 0.5),
    Case(6, 12, 8, 0.75),
    Case(1, 4, 40, 0.25),
]


def build_tower(**fields: Any) -> ArlowVLVisionModel:
    """A tower whose every weight, biases and norms included, is drawn: none is 0 or 1."""
    small = {
        "depth": 6,
        "embed_dim": 48,
        "hidden_size": 56,
        "num_heads": 2,
        "patch_size": PATCH,
        "deformable_attention_window": 0.5,
    }
    tower = ArlowVLVisionModel(ArlowVisionConfig(**(small | fields)))
    draw(tower, seed=0)
    return tower


def build_autoencoder(normalized: bool = True, **fields: Any) -> MaskedAutoencoder:
    tower = build_tower(**fields)
    decoder = PixelDecoder(tower.config, width=32, depth=2, heads=4)
    draw(decoder, seed=1)
    return MaskedAutoencoder(tower, decoder, normalized)


def draw(module: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        around = 1.0 if parameter.ndim == 1 and bool((parameter == 1).all()) else 0.0
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = around + 0.1 * noise


def draw_frames(case: Case, seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (case.batch, case.frames, case.height, case.width, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def draw_units(case: Case) -> Tensor:
    units = merge_units(case.grid)
    return visible_unit_batch(range(case.batch), units, round(units * case.mask_ratio))


def hidden_pixels(case: Case, units: Tensor) -> Tensor:
    """Which pixels a mask hides, bool [batch, height, width]: by the image, not by tokens."""
    rows, columns = case.height // UNIT, case.width // UNIT
    hidden = np.ones((case.batch, rows * columns), dtype=bool)
    for sample, shown in zip(hidden, units.numpy(), strict=True):
        sample[shown] = False
    squares = np.ones((1, UNIT, UNIT), dtype=bool)
    return torch.from_numpy(np.kron(hidden.reshape(case.batch, rows, columns), squares))
