"""Frozen features of a tower: one vector a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from arlow_trainer.config.errors import DataError
from arlow_trainer.data import BrokenSample, center_view, decode_image
from arlow_trainer.data.decode import Pixels
from arlow_trainer.mae.autoencoder import normalize_pixels
from arlow_trainer.model import ArlowVLVisionModel
from arlow_trainer.probe.labelled import LabelledSplit
from arlow_trainer.probe.results import Labelled

BATCH = 64


@torch.inference_mode()
def image_features(tower: ArlowVLVisionModel, frames: Tensor) -> Tensor:
    """Returns what a language model would read of each picture, averaged over its places.

    The mean of the merged visual tokens, and beside it the mean of every DeepStack feature.

    Args:
        tower: the tower; nothing is masked.
        frames: uint8 [batch, size, size, 3] on the tower's device.

    Returns:
        float32 [batch, (1 + DeepStack features) * hidden_size].
    """
    pixels = normalize_pixels(frames).permute(0, 3, 1, 2).to(tower.dtype)
    made = tower(pixels)
    visual, deepstack = made if isinstance(made, tuple) else (made, [])
    means = [
        tokens.unflatten(0, (len(frames), -1)).float().mean(dim=1)
        for tokens in (visual, *deepstack)
    ]
    return torch.cat(means, dim=1)


def split_features(
    towers: Sequence[ArlowVLVisionModel],
    split: LabelledSplit,
    size: int,
    on_progress: Callable[[int], None],
) -> tuple[list[Labelled], int]:
    """Returns each tower's features of a split, and how many broken pictures were left out.

    The pictures are decoded once for all towers and seen whole, in a centre view of `size` pixels.
    `on_progress` is told how many pictures were just done. Raises DataError where none can be
    decoded or the set is out of reach.
    """
    device = towers[0].device
    made: list[list[Tensor]] = [[] for _ in towers]
    kept: list[int] = []
    broken: list[str] = []
    for positions, views in _batches(split, size):
        readable = [
            (position, view)
            for position, view in zip(positions, views, strict=True)
            if not isinstance(view, BrokenSample)
        ]
        broken += [str(view) for view in views if isinstance(view, BrokenSample)]
        if readable:
            frames = torch.from_numpy(np.stack([view for _, view in readable])).to(device)
            for features, tower in zip(made, towers, strict=True):
                features.append(image_features(tower, frames))
            kept += [position for position, _ in readable]
        on_progress(len(positions))
    if not kept:
        raise DataError(
            f"{split.name}: none of the {len(broken)} pictures can be decoded: {broken[0]}; name a "
            "column or folder that holds pictures"
        )
    labels = torch.tensor([split.classes[position] for position in kept], device=device)
    return [Labelled(torch.cat(features), labels) for features in made], len(broken)


def _batches(
    split: LabelledSplit, size: int
) -> Iterator[tuple[Sequence[int], list[Pixels | BrokenSample]]]:
    """Yields samples of the split and their views uint8 [size, size, 3], decoded on threads."""

    def view(sample: int) -> Pixels | BrokenSample:
        try:
            raw = split.source.read(split.positions[sample])
            frames = center_view([decode_image(raw)], size)
        except BrokenSample as broken:
            return broken
        return frames.reshape(frames.shape[1:])

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for start in range(0, len(split), BATCH):
            samples = range(start, min(start + BATCH, len(split)))
            yield samples, list(pool.map(view, samples))
