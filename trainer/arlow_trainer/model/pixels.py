"""What the image and the video processor share: sizes, and frames to patches."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import SizeDict

from .geometry import Grid, patchify, repeat_last_frame
from .rgb import to_eight_bits, to_rgb
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


def is_nothing(items: Any) -> bool:
    """Whether a list of images or videos, or one of such lists, holds none."""
    return isinstance(items, list | tuple) and all(is_nothing(each) for each in items)


class PatchProcessor(PilBackend):
    """Resizes frames to what the tower takes, normalises them and cuts them into patches.

    `min_pixels` and `max_pixels` are other names of `size["shortest_edge"]` and
    `size["longest_edge"]`, the least and the largest area in pixels. Either may be set, and saved
    files hold both; where both are given at once, the former win.
    """

    default_to_square = False
    size: Any
    do_rescale: bool
    image_mean: list[float]
    patch_size: int
    temporal_patch_size: int

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**self._with_bounds(kwargs))

    @property
    def min_pixels(self) -> int:
        """The least area of a frame, in pixels."""
        return int(dict(self.size)["shortest_edge"])

    @min_pixels.setter
    def min_pixels(self, pixels: int) -> None:
        self.size = SizeDict(**(dict(self.size) | {"shortest_edge": pixels}))

    @property
    def max_pixels(self) -> int:
        """The largest area of a frame, in pixels."""
        return int(dict(self.size)["longest_edge"])

    @max_pixels.setter
    def max_pixels(self, pixels: int) -> None:
        self.size = SizeDict(**(dict(self.size) | {"longest_edge": pixels}))

    def to_dict(self) -> dict[str, Any]:
        """Every setting, as saved."""
        settings: dict[str, Any] = super().to_dict()
        return settings | {"min_pixels": self.min_pixels, "max_pixels": self.max_pixels}

    @classmethod
    def from_dict(cls, settings: dict[str, Any], **kwargs: Any) -> Any:  # type: ignore[override]
        """A processor of saved settings; `kwargs` override them."""
        if kwargs.get("size") is not None:
            # Saved settings name the size twice: an override must win over both.
            settings = {k: v for k, v in settings.items() if k not in ("min_pixels", "max_pixels")}
        return super().from_dict(settings, **kwargs)

    def _with_bounds(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Settings with their whole size, under both of its names."""
        size = settings.get("size")
        if not isinstance(size, dict | SizeDict | None):
            raise ValueError(
                f"size is {size!r}: it takes the keys shortest_edge and longest_edge, the least "
                "and the largest area in pixels."
            )
        given = {"shortest_edge": settings.get("min_pixels")}
        given["longest_edge"] = settings.get("max_pixels")
        bounds = self._bounds(dict(size or {}) | {k: v for k, v in given.items() if v is not None})
        return settings | {
            "size": bounds,
            "min_pixels": bounds["shortest_edge"],
            "max_pixels": bounds["longest_edge"],
        }

    def _bounds(self, given: dict[str, int | None]) -> dict[str, int]:
        """A whole size from one given in part.

        Raises:
            ValueError: it has other keys, or its bounds contradict each other.
        """
        bounds = {key: value for key, value in dict(self.size).items() if value is not None}
        bounds |= {key: value for key, value in given.items() if value is not None}
        if set(bounds) != {"shortest_edge", "longest_edge"}:
            raise ValueError(
                f"size has the keys {', '.join(sorted(bounds))}: it takes shortest_edge and "
                "longest_edge, the least and the largest area in pixels."
            )
        if not 0 < bounds["shortest_edge"] <= bounds["longest_edge"]:
            raise ValueError(
                f"size is {bounds}: shortest_edge must be above 0 and at most longest_edge."
            )
        return bounds

    def process_image(
        self,
        image: Any,
        do_convert_rgb: bool | None = None,
        input_data_format: Any = None,
        **kwargs: Any,
    ) -> Array:
        """A picture (PIL, numpy, torch) as channels first; with `do_convert_rgb`, by `to_rgb`.

        Whole numbers of more than 8 bits in an array are scaled likewise. Warns of numbers in
        [0, 1], which `do_rescale` would make black.
        """
        if isinstance(image, Image.Image):
            if do_convert_rgb:
                image = to_rgb(image)
        else:
            image = np.asarray(image)
            if image.dtype.kind in "iu" and image.dtype.itemsize > 1 and image.size:
                if image.max() > 255:
                    image = to_eight_bits(image)
            elif image.dtype.kind == "f" and self.do_rescale and image.size and image.max() <= 1:
                warnings.warn(
                    "a picture has floating-point numbers of at most 1, and the processor divides "
                    "by 255: give do_rescale=False, or numbers from 0 to 255.",
                    stacklevel=2,
                )
        out: Array = super().process_image(
            image, do_convert_rgb=do_convert_rgb, input_data_format=input_data_format, **kwargs
        )
        return out

    def no_patches(self, pixels: str, grids: str, settings: dict[str, Any]) -> dict[str, Array]:
        """What nothing becomes, by the names of a call's pixels and grids."""
        patch_size = settings.get("patch_size") or self.patch_size
        depth = settings.get("temporal_patch_size") or self.temporal_patch_size
        features = len(self.image_mean) * depth * patch_size**2
        return {
            pixels: np.zeros((0, features), np.float32),
            grids: np.zeros((0, 3), np.int64),
        }

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
                f"an image of {height} x {width} pixels cannot be cut into merge units of "
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
