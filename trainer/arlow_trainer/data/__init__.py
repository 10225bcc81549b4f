"""Which sample comes when, and how it gets from its file into a micro-batch."""

from .augment import center_view, crop_box, random_view
from .choice import Choice, Modality, choose, modality_at
from .deal import deal
from .decode import clip_frames, decode_clip, decode_image
from .demo import DemoSet, write_demo_set
from .loader import MicroBatch, Skipped, StepBatch, StepLoader, token_costs, workers_per_rank
from .prepare import PreparedSet, prepare_ucf101
from .sample import BrokenSample, RawSample, Source
from .shuffle import permute
from .sources import open_source, open_sources

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
    "modality_at",
    "open_source",
    "open_sources",
    "permute",
    "prepare_ucf101",
    "random_view",
    "token_costs",
    "workers_per_rank",
    "write_demo_set",
]
