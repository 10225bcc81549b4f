"""Which sample comes when, and how it gets from its file into a micro-batch."""

from arlow_trainer.data.decode import BrokenSample, RawSample, Source, decode_image
from arlow_trainer.data.demo import DemoSet, write_demo_set
from arlow_trainer.data.fingerprint import fingerprint
from arlow_trainer.data.loader import (
    MicroBatch,
    Skipped,
    StepBatch,
    StepLoader,
    token_costs,
)
from arlow_trainer.data.order import Choice, choose, deal, modality_at, permute
from arlow_trainer.data.prepare import PreparedSet, prepare_ucf101
from arlow_trainer.data.sources import open_source, open_sources
from arlow_trainer.data.video import clip_frames, decode_clip
from arlow_trainer.data.views import center_view, crop_box, random_view

__all__ = [
    "BrokenSample",
    "Choice",
    "DemoSet",
    "MicroBatch",
    "PreparedSet",
    "RawSample",
    "Skipped",
    "Source",
    "StepBatch",
    "StepLoader",
    "center_view",
    "choose",
    "clip_frames",
    "crop_box",
    "deal",
    "decode_clip",
    "decode_image",
    "fingerprint",
    "modality_at",
    "open_source",
    "open_sources",
    "permute",
    "prepare_ucf101",
    "random_view",
    "token_costs",
    "write_demo_set",
]
