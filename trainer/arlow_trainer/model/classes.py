"""The classes of this package, made known to transformers' Auto classes."""

from __future__ import annotations

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoProcessor
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from .configuration_arlow import ArlowVisionConfig
from .geometry import patchify, unpatchify
from .image_processing_arlow import ArlowImageProcessor
from .modeling_arlow import ArlowVLVisionModel
from .processing_arlow import ArlowProcessor
from .video_processing_arlow import ArlowVideoProcessor

# For transformers' Auto classes in this process ...
AutoConfig.register(ArlowVisionConfig.model_type, ArlowVisionConfig, exist_ok=True)
AutoModel.register(ArlowVisionConfig, ArlowVLVisionModel, exist_ok=True)
AutoImageProcessor.register(ArlowVisionConfig, ArlowImageProcessor, exist_ok=True)
AutoVideoProcessor.register(ArlowVisionConfig, ArlowVideoProcessor, exist_ok=True)
AutoProcessor.register(ArlowVisionConfig, ArlowProcessor, exist_ok=True)
# ... and for those that load an export, which carries the code of these classes.
ArlowVisionConfig.register_for_auto_class()  # type: ignore[no-untyped-call]
ArlowVLVisionModel.register_for_auto_class("AutoModel")  # type: ignore[no-untyped-call]
ArlowImageProcessor.register_for_auto_class()  # type: ignore[no-untyped-call]
ArlowVideoProcessor.register_for_auto_class()  # type: ignore[no-untyped-call]
ArlowProcessor.register_for_auto_class()  # type: ignore[no-untyped-call]

__all__ = [
    "ArlowImageProcessor",
    "ArlowProcessor",
    "ArlowVLVisionModel",
    "ArlowVideoProcessor",
    "ArlowVisionConfig",
    "patchify",
    "unpatchify",
]
