"""What every room's tests need: one thread a process, and no network."""

from __future__ import annotations

import os

# Set before torch and Hugging Face are imported, and inherited by every rank a test starts.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
