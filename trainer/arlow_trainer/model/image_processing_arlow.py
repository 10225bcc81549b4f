"""Images to the tower's patches."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers.image_processing_base import BatchFeature
from transformers.image_utils import PILImageResampling
from transformers.processing_utils import ImagesKwargs

from .pixels import PATCH_OPTIONS, Array, PatchProcessor, is_nothing
from .sizing import fitted_size, pan_and_scan_boxes


class ArlowImageProcessorKwargs(ImagesKwargs, total=False):
    """What `ArlowImageProcessor` and its calls take beyond the usual."""

    patch_size: int
    temporal_patch_size: int
    merge_size: int
    min_pixels: int | None
    max_pixels: int | None
    do_pan_and_scan: bool
    pan_and_scan_min_crop_size: int
    pan_and_scan_max_num_crops: int
    pan_and_scan_min_ratio_to_activate: float


class ArlowImageProcessor(PatchProcessor):
    """Images (PIL, numpy, torch) to `pixel_values` and `image_grid_thw`, with Pillow alone.

    Each image is resized to multiples of `patch_size * merge_size`, its area kept between
    `size["shortest_edge"]` and `size["longest_edge"]` pixels (`fitted_size`), and repeated over
    the frames of a patch. With `do_pan_and_scan` a long image is followed by its crops, and
    `num_crops` counts them for each image.

    Returns of a call: `pixel_values`, float32 [patches of all images, C * t * p * p],
    `image_grid_thw`, int64 [images and crops, 3], and `num_crops` [images], 0 where there are none.
    No images make empty tensors.

    Raises:
        ValueError: an image that is too long, a size that cannot be met.
    """

    do_resize = True
    resample = PILImageResampling.BICUBIC
    size = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
    do_rescale = True
    do_normalize = True
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    do_convert_rgb = True
    patch_size = 14
    temporal_patch_size = 2
    merge_size = 2
    do_pan_and_scan = False
    pan_and_scan_min_crop_size = 256
    pan_and_scan_max_num_crops = 4
    pan_and_scan_min_ratio_to_activate = 1.6
    valid_kwargs = ArlowImageProcessorKwargs
    model_input_names = ["pixel_values", "image_grid_thw", "num_crops"]

    def preprocess(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        """Images to patches; `kwargs` override the processor's settings for this call."""
        settings = self._with_bounds(kwargs)
        if is_nothing(images):
            data = self.no_patches("pixel_values", "image_grid_thw", kwargs) | {
                "num_crops": np.zeros(0, np.int64)
            }
            return BatchFeature(data=data, tensor_type=kwargs.get("return_tensors"))
        out: BatchFeature = super().preprocess(images, *args, **settings)
        return out

    def _preprocess(  # type: ignore[override]
        self,
        images: list[Array],
        do_pan_and_scan: bool = False,
        pan_and_scan_min_crop_size: int = 256,
        pan_and_scan_max_num_crops: int = 4,
        pan_and_scan_min_ratio_to_activate: float = 1.6,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        views, crops = [], []
        for image in images:
            boxes = []
            if do_pan_and_scan:
                boxes = pan_and_scan_boxes(
                    image.shape[-2],
                    image.shape[-1],
                    pan_and_scan_min_crop_size,
                    pan_and_scan_max_num_crops,
                    pan_and_scan_min_ratio_to_activate,
                )
            crops.append(len(boxes))
            views.append(image)
            views += [image[:, top:bottom, left:right] for left, top, right, bottom in boxes]
        options = {name: kwargs[name] for name in PATCH_OPTIONS}
        items = [self.frames_to_patches([view], **options) for view in views]
        data: dict[str, Any] = {
            "pixel_values": np.concatenate([patches for patches, _ in items]),
            "image_grid_thw": np.array([grid for _, grid in items], dtype=np.int64),
            "num_crops": crops,
        }
        return BatchFeature(data=data, tensor_type=return_tensors)

    def get_number_of_image_patches(
        self, height: int, width: int, images_kwargs: dict[str, Any] | None = None
    ) -> int:
        """Patches, before merging, of an image of `height` x `width` pixels."""
        options = images_kwargs or {}
        patch_size: int = options.get("patch_size", self.patch_size)
        factor = patch_size * options.get("merge_size", self.merge_size)
        bounds = self._with_bounds(options)
        rows, columns = fitted_size(
            height, width, factor, bounds["min_pixels"], bounds["max_pixels"]
        )
        return (rows // patch_size) * (columns // patch_size)
