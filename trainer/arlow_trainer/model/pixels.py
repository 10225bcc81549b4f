"""What the image and the video processor share: sizes, and frames to patches."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import SizeDict

from .patches import Grid, patchify, repeat_last_frame
from .sizing import fitted_size

Array = NDArray[Any]
# What `frames_to_patches` takes of a call's settings.
PATCH_OPTIONS = (
    "do_resize",
    "size",
    "resample",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
    "patch_size",
    "temporal_patch_size",
    "merge_size",
)


class PatchProcessor(PilBackend):
    """Resizes frames to what the tower takes, normalises them and cuts them into patches."""

    default_to_square = False
    size: Any
    min_pixels: int | None = None
    max_pixels: int | None = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # They are part of the size now, and must not override that of a call.
        self.min_pixels = self.max_pixels = None

    def _standardize_kwargs(  # type: ignore[override]
        self,
        size: SizeDict | dict[str, int] | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Fold a partial size and the older `min_pixels` and `max_pixels` into one size."""
        if not isinstance(size, dict | SizeDict | None):
            raise ValueError(
                f"size is {size!r}: it takes the keys shortest_edge and longest_edge, the least "
                "and the largest area in pixels."
            )
        bounds: dict[str, int] = {}
        for source in (type(self).size, self.size, size or {}):
            bounds |= {key: value for key, value in dict(source).items() if value is not None}
        if min_pixels is not None:
            bounds["shortest_edge"] = min_pixels
        if max_pixels is not None:
            bounds["longest_edge"] = max_pixels
        if set(bounds) != {"shortest_edge", "longest_edge"}:
            raise ValueError(
                f"size has the keys {', '.join(sorted(bounds))}: it takes shortest_edge and "
                "longest_edge, the least and the largest area in pixels."
            )
        if not 0 < bounds["shortest_edge"] <= bounds["longest_edge"]:
            raise ValueError(
                f"size is {bounds}: shortest_edge must be above 0 and at most longest_edge."
            )
        standard: dict[str, Any] = super()._standardize_kwargs(size=bounds, **kwargs)
        return standard

    def frames_to_patches(
        self,
        frames: list[Array],
        *,
        do_resize: bool,
        size: Any,
        resample: Any,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: Any,
        image_std: Any,
        patch_size: int,
        temporal_patch_size: int,
        merge_size: int,
    ) -> tuple[Array, Grid]:
        """Frames of one item, each [C, H, W], to patches [t * h * w, features] and their grid.

        Raises:
            ValueError: the size does not fit whole merge units and `do_resize` is off.
        """
        height, width = frames[0].shape[-2:]
        factor = patch_size * merge_size
        if do_resize:
            height, width = fitted_size(
                height, width, factor, size.shortest_edge, size.longest_edge
            )
            target = SizeDict(height=height, width=width)
            frames = [self.resize(frame, target, resample) for frame in frames]
        elif height % factor or width % factor:
            raise ValueError(
                f"a picture of {height} x {width} pixels cannot be cut into merge units of "
                f"{factor} x {factor}: leave do_resize on or give multiples of {factor}."
            )
        if do_rescale:
            frames = [self.rescale(frame, rescale_factor) for frame in frames]
        if do_normalize:
            frames = [self.normalize(frame, image_mean, image_std) for frame in frames]
        pixels = torch.from_numpy(np.stack(frames)).permute(0, 2, 3, 1).unsqueeze(0)
        pixels = repeat_last_frame(pixels, temporal_patch_size)
        patches = patchify(pixels, patch_size, temporal_patch_size)[0].float()
        time = pixels.shape[1] // temporal_patch_size
        return patches.numpy(), (time, height // patch_size, width // patch_size)
