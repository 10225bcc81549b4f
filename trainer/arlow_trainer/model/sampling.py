"""Which frames of a video are used. Indices ascend."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Share of a still frame's weight: what does not move is sampled too, only less densely.
STILL_WEIGHT = 0.1


def uniform_indices(total: int, count: int) -> NDArray[np.int64]:
    """`count` distinct ones of `total` frames at equal distances, from the first on, or all."""
    count = min(count, total)
    return np.arange(count, dtype=np.int64) * total // count


def patch_frames(total: int, depth: int, max_frames: int, drop: bool) -> int:
    """How many frames a video of `total` frames becomes, so that they fill patches.

    The public processor's number (yuchenxie4645/transformers, branch ArlowVL): the patches in time
    are a multiple of `depth`, rounded up, so an even number by default, within `max_frames`.

    Args:
        total: frames of the video, at least 1.
        depth: frames of a patch.
        max_frames: the largest number of frames.
        drop: leave out frames at the end that fill no patch, where there is a whole one before
            them, instead of rounding up.
    """
    patches = max(1, total // depth if drop else -(-total // depth))
    patches += -patches % depth
    return depth * min(patches, max(1, max_frames // depth))


def spread_indices(total: int, count: int) -> NDArray[np.int64]:
    """The frames nearest to `count` positions spread evenly from the first to the last of `total`;
    some twice where there are too few."""
    if count == 1:
        return np.zeros(1, dtype=np.int64)
    # In whole numbers, to the nearest.
    gaps = count - 1
    return (2 * np.arange(count, dtype=np.int64) * (total - 1) + gaps) // (2 * gaps)


def motion_indices(frames: NDArray[np.generic], count: int, threshold: float) -> NDArray[np.int64]:
    """`count` of the frames [T, ...], the more densely the more the image changes.

    A frame's weight is its mean absolute difference from the one before, relative to the largest,
    plus that of a still frame; differences below `threshold` count as still. The frames chosen
    divide the sum of weights into equal parts. Nothing is drawn by chance. Indices are distinct.
    """
    total = len(frames)
    if total <= count:
        return np.arange(total, dtype=np.int64)
    motion = np.zeros(total)
    for index in range(1, total):
        difference = frames[index].astype(np.float32) - frames[index - 1].astype(np.float32)
        motion[index] = np.abs(difference).mean()
    motion /= max(motion.max(), np.finfo(np.float64).tiny)
    weights = np.where(motion < threshold, 0.0, motion) + STILL_WEIGHT
    edges = np.cumsum(weights)
    marks = (np.arange(count) + 0.5) * edges[-1] / count
    chosen = np.unique(np.searchsorted(edges, marks))
    # A frame heavier than one part is hit twice: the heaviest frames left over make up for it.
    spare = np.setdiff1d(np.arange(total), chosen)
    heaviest = spare[np.argsort(-weights[spare], kind="stable")][: count - len(chosen)]
    return np.sort(np.concatenate([chosen, heaviest])).astype(np.int64)
