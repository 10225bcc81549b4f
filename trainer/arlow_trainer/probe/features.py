"""Frozen features of a tower: one vector per image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from arlow_trainer.config.errors import DataError
from arlow_trainer.data import BrokenSample, center_view, decode_image
from arlow_trainer.data.views import Pixels
from arlow_trainer.mae.autoencoder import normalize_pixels
from arlow_trainer.model import ArlowVLVisionModel
from arlow_trainer.probe.labelled import LabelledSplit
from arlow_trainer.probe.results import Labelled

BATCH = 64


@torch.inference_mode()
def image_features(tower: ArlowVLVisionModel, frames: Tensor) -> Tensor:
    """Returns the tower's outputs for each image, averaged over positions.

    The mean of the merged visual tokens, concatenated with the mean of every DeepStack feature:
    all that a language model would be given.

    Args:
        tower: the tower; it sees all patches.
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
    """Returns each tower's features of a split, and the number of images that were skipped.

    Images are decoded once for all towers, as centre crops resized to `size` pixels; those that
    cannot be decoded are skipped.

    Args:
        towers: the towers, on one device.
        split: the samples.
        size: side of the image in pixels.
        on_progress: called after each batch with its number of images.

    Raises:
        DataError: no image can be decoded, or the set cannot be read.
    """
    device = towers[0].device
    made: list[list[Tensor]] = [[] for _ in towers]
    decoded: list[int] = []
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
            decoded += [position for position, _ in readable]
        on_progress(len(positions))
    if not decoded:
        raise DataError(
            f"{split.name}: none of the {len(broken)} images can be decoded: {broken[0]}; give a "
            "column or folder that holds images"
        )
    labels = torch.tensor([split.classes[position] for position in decoded], device=device)
    return [Labelled(torch.cat(features), labels) for features in made], len(broken)


def _batches(
    split: LabelledSplit, size: int
) -> Iterator[tuple[Sequence[int], list[Pixels | BrokenSample]]]:
    """Yields batches: indexes in the split, and the images uint8 [size, size, 3] at them.

    Images are decoded on threads; one that cannot be is given as its error.
    """

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
