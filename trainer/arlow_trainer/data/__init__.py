"""Which sample comes when, and how it gets from its file into a micro-batch."""

from arlow_trainer.data.cores import threads_asked, usable_cores
from arlow_trainer.data.decode import (
    BrokenSample,
    RawSample,
    Source,
    center_view,
    clip_frames,
    crop_box,
    decode_clip,
    decode_image,
    random_view,
)
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

__all__ = [
    "BrokenSample",
    "Choice",
    "DemoSet",
    "MicroBatch",
    "Modality",
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
    "threads_asked",
    "token_costs",
    "usable_cores",
    "write_demo_set",
]
