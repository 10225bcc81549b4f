"""The vision tower and its processors as Hugging Face classes: exactly what an export carries.

The classes, and transformers with them, are imported when the first is asked for: processes that
only decode pictures need `rgb` alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .classes import (
        ArlowImageProcessor,
        ArlowProcessor,
        ArlowVideoProcessor,
        ArlowVisionConfig,
        ArlowVLVisionModel,
        patchify,
        unpatchify,
    )

__all__ = [
    "ArlowImageProcessor",
    "ArlowProcessor",
    "ArlowVLVisionModel",
    "ArlowVideoProcessor",
    "ArlowVisionConfig",
    "patchify",
    "unpatchify",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import classes

    return getattr(classes, name)
