"""A torch that reports one Turing GPU where CUDA_VISIBLE_DEVICES allows, without a toolkit."""

from __future__ import annotations

import os
from types import SimpleNamespace

import torch
import torch.cuda.nccl

first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
gpus = 0 if first in ("", "-1", "NoDevFiles", "none", "void") else 1

torch.version.cuda = "13.0"
torch.cuda.is_available = lambda: bool(gpus)
torch.cuda.device_count = lambda: gpus
torch.cuda.get_device_capability = lambda *_: (7, 5)
torch.cuda.get_device_properties = lambda *_: SimpleNamespace(major=7, minor=5)
torch.cuda.is_bf16_supported = lambda *_, **__: False
torch.cuda.nccl.version = lambda: (2, 29, 3)
