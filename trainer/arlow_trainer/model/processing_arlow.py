"""Images and videos through one processor."""

from __future__ import annotations

from typing import Any

from transformers.processing_utils import ProcessorMixin

from .video_base import VideoBase


class ArlowProcessor(ProcessorMixin):
    """Ties `ArlowImageProcessor` and `ArlowVideoProcessor` together.

    `processor(images=..., videos=..., return_tensors="pt")` returns what they return; settings for
    one of them go into `images_kwargs` and `videos_kwargs`.
    """

    def __init__(
        self,
        image_processor: Any,
        video_processor: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_processor, video_processor, **kwargs)  # type: ignore[no-untyped-call]

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        # transformers' own check asks for its video base class, which needs torchvision.
        if argument_name != "video_processor":
            return super().check_argument_for_proper_class(  # type: ignore[no-untyped-call]
                argument_name, argument
            )
        if not isinstance(argument, VideoBase):
            raise TypeError(f"video_processor is a {type(argument).__name__}, not one for videos.")
        return type(argument)
