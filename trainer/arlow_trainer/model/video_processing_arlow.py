"""Videos to the tower's patches."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers.image_processing_base import BatchFeature
from transformers.image_utils import PILImageResampling
from transformers.processing_utils import VideosKwargs
from transformers.video_utils import (
    VideoMetadata,
    is_valid_video,
    make_batched_metadata,
    make_batched_videos,
)

from .pixels import PATCH_OPTIONS, Array, PatchProcessor
from .rgb import to_rgb
from .sampling import motion_indices, patch_frames, spread_indices, uniform_indices
from .video_base import VideoBase

SAMPLE_STRATEGIES = {"uniform", "motion_adaptive", "fps_based"}
# Which strategies read a setting that others do not.
READ_BY = {"fps": {"fps_based"}, "num_frames": {"uniform", "motion_adaptive"}}


class ArlowVideoProcessorKwargs(VideosKwargs, total=False):
    """What `ArlowVideoProcessor` and its calls take beyond the usual."""

    patch_size: int
    temporal_patch_size: int
    merge_size: int
    min_pixels: int | None
    max_pixels: int | None
    min_frames: int
    max_frames: int
    sample_strategy: str
    motion_threshold: float


class ArlowVideoProcessor(PatchProcessor, VideoBase):  # type: ignore[misc]
    """Decoded videos to `pixel_values_videos` and `video_grid_thw`, without torchvision.

    A video is an array of frames [T, H, W, 3] or [T, 3, H, W] (numpy, torch) or a list of PIL
    frames; a list of videos is a batch. Frames are chosen by `sample_strategy`:
    `uniform` takes `num_frames` of them (unset: all) at equal distances;
    `fps_based` takes `fps` a second, which needs the video's own rate in `video_metadata`, and at
    least `min_frames`;
    `motion_adaptive` takes `num_frames` (unset: `max_frames`), more densely where the image
    changes by `motion_threshold` of its largest change or more (`motion_indices`).
    No strategy takes more frames than the video has. An even number of patches in time is then
    filled (`patch_frames`): with at most `max_frames` frames, spread evenly over those chosen
    (`spread_indices`), some of them twice where they are too few. The area of a frame is kept
    between `size["shortest_edge"]` and `size["longest_edge"]` pixels.

    Returns of a call: `pixel_values_videos`, float32 [patches of all videos, C * t * p * p], and
    `video_grid_thw`, int64 [videos, 3]; `video_metadata` with `return_metadata`, whose
    `frames_indices` are the frames in the patches. No videos make empty tensors.

    Raises:
        ValueError: a video without frames, files or addresses instead of frames, an unknown
            strategy, a call's setting that its strategy does not read, a missing rate, frames that
            are too long.
    """

    do_resize = True
    resample = PILImageResampling.BICUBIC
    size = {"shortest_edge": 128 * 32 * 32, "longest_edge": 32 * 32 * 768}
    do_rescale = True
    do_normalize = True
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    do_convert_rgb = True
    patch_size = 14
    temporal_patch_size = 2
    merge_size = 2
    do_sample_frames = True
    sample_strategy = "uniform"
    fps = None
    num_frames = None
    min_frames = 4
    max_frames = 768
    motion_threshold = 0.1
    valid_kwargs = ArlowVideoProcessorKwargs  # type: ignore[assignment]
    model_input_names = ["pixel_values_videos", "video_grid_thw"]

    def preprocess(self, videos: Any, **kwargs: Any) -> BatchFeature:
        """Videos to patches; `kwargs` override the processor's settings for this call."""
        strategy = kwargs.get("sample_strategy") or self.sample_strategy
        for name, readers in READ_BY.items():
            if kwargs.get(name) is not None and strategy in SAMPLE_STRATEGIES - readers:
                raise ValueError(
                    f"{name} is given, but sample_strategy is {strategy!r}, which does not read "
                    f"it: give {name} with sample_strategy {' or '.join(sorted(readers))}."
                )
        settings = self._with_bounds(kwargs)
        if isinstance(videos, list | tuple) and not videos:
            data = self.no_patches("pixel_values_videos", "video_grid_thw", kwargs)
            return BatchFeature(data=data, tensor_type=kwargs.get("return_tensors"))
        out: BatchFeature = super().preprocess(videos, **settings)
        depth = kwargs.get("temporal_patch_size") or self.temporal_patch_size
        for about, grid in zip(out.get("video_metadata", ()), out["video_grid_thw"], strict=False):
            if about.frames_indices is not None:
                chosen = spread_indices(len(about.frames_indices), int(grid[0]) * depth)
                about.frames_indices = [about.frames_indices[index] for index in chosen]
        return out

    def sample_frames(
        self,
        metadata: VideoMetadata,
        frames: Array,
        sample_strategy: str,
        num_frames: int | None,
        fps: float | None,
        min_frames: int,
        max_frames: int,
        motion_threshold: float,
        **kwargs: Any,
    ) -> NDArray[np.int64]:
        """Indices of the frames to take from one video; the arguments are those of the class."""
        total = len(frames)
        if sample_strategy == "uniform":
            return uniform_indices(total, num_frames or total)
        if sample_strategy == "motion_adaptive":
            return motion_indices(frames, num_frames or max_frames, motion_threshold)
        if sample_strategy == "fps_based":
            if not fps or not metadata.fps:
                missing = "fps" if not fps else "the video's own rate, video_metadata fps,"
                raise ValueError(
                    f"{missing} is not set: sample_strategy fps_based takes fps frames a second."
                )
            return uniform_indices(total, max(int(total / metadata.fps * fps), min_frames))
        raise ValueError(
            f"sample_strategy is {sample_strategy!r}: it must be one of "
            f"{', '.join(sorted(SAMPLE_STRATEGIES))}."
        )

    def _decode_and_sample_videos(
        self,
        videos: Any,
        video_metadata: Any,
        do_sample_frames: bool | None = None,
        sample_indices_fn: Any = None,
    ) -> tuple[list[Array], list[VideoMetadata]]:
        if _is_empty(videos):
            raise ValueError("videos is empty: give at least one, each of at least one frame.")
        batch: list[Any] = make_batched_videos(_in_rgb(videos))
        if not all(is_valid_video(video) for video in batch):
            raise ValueError(
                "videos must be decoded frames: an array [T, H, W, 3], a list of PIL frames, or a "
                "list of these. Files and addresses are to be decoded first, for example by PyAV."
            )
        decoded: list[Any] = [np.asarray(video) for video in batch]
        metadata = make_batched_metadata(decoded, video_metadata=video_metadata)
        if do_sample_frames:
            for index, (video, about) in enumerate(zip(decoded, metadata, strict=True)):
                indices = sample_indices_fn(metadata=about, frames=video)
                about.frames_indices = indices.tolist()
                decoded[index] = video[indices]
        return decoded, metadata

    def _prepare_input_videos(
        self,
        videos: list[Array],
        do_convert_rgb: bool | None = None,
        input_data_format: Any = None,
        **kwargs: Any,
    ) -> list[list[Array]]:
        return [
            [self.process_image(frame, do_convert_rgb, input_data_format) for frame in video]
            for video in videos
        ]

    def _preprocess(  # type: ignore[override]
        self, videos: list[list[Array]], return_tensors: str | None = None, **kwargs: Any
    ) -> BatchFeature:
        options = {name: kwargs[name] for name in PATCH_OPTIONS}
        depth, max_count = kwargs["temporal_patch_size"], kwargs["max_frames"]
        items = []
        for video in videos:
            # The public processor leaves the last frames out only where it resizes.
            count = patch_frames(len(video), depth, max_count, drop=kwargs["do_resize"])
            frames = [video[index] for index in spread_indices(len(video), count)]
            items.append(self.frames_to_patches(frames, **options))
        data = {
            "pixel_values_videos": np.concatenate([patches for patches, _ in items]),
            "video_grid_thw": np.array([grid for _, grid in items], dtype=np.int64),
        }
        return BatchFeature(data=data, tensor_type=return_tensors)


def _in_rgb(videos: Any) -> Any:
    """The same with PIL frames as RGB: grey and transparent ones have other axes."""
    if isinstance(videos, list | tuple):
        return [_in_rgb(video) for video in videos]
    return to_rgb(videos) if isinstance(videos, Image.Image) else videos


def _is_empty(videos: Any) -> bool:
    """Whether there is no video, or one without frames."""
    if isinstance(videos, list | tuple):
        return not videos or any(_is_empty(video) for video in videos)
    return isinstance(videos, np.ndarray | torch.Tensor) and not len(videos)
