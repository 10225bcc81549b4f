"""The base class of video processors, which transformers has given two names."""

from __future__ import annotations

from typing import Any

import transformers.video_processing_utils as video_processing

# The latter, before there was the former, asks for torchvision only where it does the work itself.
VideoBase: Any = getattr(
    video_processing, "VideoProcessorMixin", video_processing.BaseVideoProcessor
)
