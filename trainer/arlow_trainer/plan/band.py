"""Which pairs of tokens the tower's attention computes: those that its window can reach.

Beyond the window the bias falls by 100 strengths, so that softmax gives exactly zero. Tokens of a
clip come step by step, and a window that is narrow in time reaches few steps.
"""

from __future__ import annotations

from dataclasses import dataclass

FALL = 100.0
"""Strengths by which the bias falls beyond the window, as in the tower (`model.geometry`)."""
LEAST_FALL = 300.0
"""From a fall of so much on a weight is zero: exp(-104) is nothing in float32, and the scores of a
row would have to lie 196 apart to make up for the rest. In training they stay far below (the
metric `arlow_attention_logit_max`)."""
MOST_SHARE = 0.7
"""Of all pairs; above that, copying keys and values costs what is saved."""
LEAST_ROWS = 128
"""Queries that the kernels take at once, where there are as many."""
_EDGE = 1e-3


@dataclass(frozen=True)
class Band:
    """Attention in blocks of consecutive tokens, each of which sees its own and its neighbours'.

    Attributes:
        rows: tokens of a block.
        margin: tokens that it sees before its first and after its last; at most `rows`.
    """

    rows: int
    margin: int

    @property
    def span(self) -> int:
        """Tokens that a block sees."""
        return self.rows + 2 * self.margin


def attention_band(steps: int, step_tokens: int, window: float, strength: float) -> Band | None:
    """Returns the band that holds all pairs within the window; None: all pairs are computed.

    Args:
        steps: temporal steps of the grid.
        step_tokens: tokens of each step that the tower reads, the steps one after another.
        window: of the bias, in coordinates normalised to [0, 1]; 0: none.
        strength: of the bias.
    """
    if steps < 2 or window <= 0 or FALL * strength < LEAST_FALL:
        return None
    reach = int(window * (steps - 1) + _EDGE)
    fitting = [
        width
        for width in range(max(1, reach), steps)
        if steps % width == 0 and width + 2 * reach <= MOST_SHARE * steps
    ]
    if not fitting:
        return None
    width = min(fitting, key=lambda width: (width * step_tokens < LEAST_ROWS, width))
    return Band(width * step_tokens, reach * step_tokens)
