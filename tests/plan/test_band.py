"""Which pairs of tokens attention computes: a table, and every pair that weighs anything."""

from __future__ import annotations

import pytest
import torch

from arlow_trainer.config import load_run
from arlow_trainer.model.geometry import OUTSIDE_WINDOW, distance_bias, normalised_coordinates
from arlow_trainer.plan.band import FALL, LEAST_FALL, Band, attention_band
from arlow_trainer.plan.tokens import tokens_per_clip, tokens_per_image, tower_band


@pytest.mark.parametrize(
    ("steps", "step_tokens", "window", "strength", "expected"),
    [
        # The full run: 0.25 of seven steps is one on either side; of 512 keys 256.
        (8, 64, 0.25, 4.0, Band(128, 64)),
        # An image, no window, one that holds all, and one that holds nearly all.
        (1, 64, 0.25, 4.0, None),
        (8, 64, 0.0, 4.0, None),
        (8, 64, 1.0, 4.0, None),
        (8, 64, 0.3, 4.0, None),
        # A bias that leaves pairs beyond the window some weight.
        (8, 64, 0.25, 2.9, None),
        (8, 64, 0.25, 3.0, Band(128, 64)),
        # Each step by itself; blocks of 128 rows where there are as many.
        (8, 128, 0.1, 4.0, Band(128, 0)),
        (8, 64, 0.1, 4.0, Band(128, 0)),
        (8, 4, 0.1, 4.0, Band(4, 0)),
        # Five steps have no blocks but of one, seven neither.
        (5, 64, 0.25, 4.0, Band(64, 64)),
        (7, 128, 0.17, 4.0, Band(128, 128)),
        (16, 64, 0.25, 4.0, Band(256, 192)),
    ],
)
def test_bands(
    steps: int, step_tokens: int, window: float, strength: float, expected: Band | None
) -> None:
    assert attention_band(steps, step_tokens, window, strength) == expected


def test_the_fall_is_the_towers() -> None:
    assert FALL == OUTSIDE_WINDOW


@pytest.mark.parametrize("steps", range(1, 33))
def test_a_band_holds_every_pair_within_the_window(steps: int) -> None:
    coordinates = normalised_coordinates(steps, 1, 1)
    time = torch.arange(steps)
    # Widths beside those that are exact fractions of the steps, and exact ones in float32.
    windows = {0.03, 0.1, 0.25, 0.34, 0.5} | {k / max(1, steps - 1) for k in range(4)}
    for window in sorted(windows):
        band = attention_band(steps, 1, window, 4.0)
        if band is None:
            continue
        first = time // band.rows * band.rows - band.margin
        held = (time >= first[:, None]) & (time < first[:, None] + band.span)
        bias = distance_bias(coordinates, window, 4.0)
        assert held[bias > -LEAST_FALL].all()
        assert steps % band.rows == 0
        assert band.margin <= band.rows


def test_bands_of_a_run() -> None:
    full = load_run("arlow-vision-3072").spec.training
    clip, image = tokens_per_clip(full), tokens_per_image(full)
    assert tower_band(full, clip) == Band(128, 64)
    assert tower_band(full, image) == Band(64, 0)
    plain = load_run("arlow-vision-3072", ["model.useDeformableAttention=false"]).spec.training
    assert tower_band(plain, clip) == Band(512, 0)
