"""The learning rate of every step."""

from __future__ import annotations

import math


def learning_rate(step: int, total_steps: int, warmup_steps: int, peak: float) -> float:
    """Returns the learning rate of a step: linear warm-up, then cosine decay to zero.

    Args:
        step: global step, from 0.
        total_steps: steps of the whole run.
        warmup_steps: steps until the peak is reached.
        peak: highest learning rate.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
