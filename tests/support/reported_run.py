"""A stored run with everything that a report shows."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from arlow_trainer.config import RunStatus
from arlow_trainer.pictures.drawing import png
from arlow_trainer.pictures.stored import picture_key
from arlow_trainer.probe.stored import PROBE_FILE
from arlow_trainer.storage.events import EventLog
from arlow_trainer.storage.store import Store
from arlow_trainer.telemetry import HISTORY_FILE, STATUS_FILE
from support.stored_run import save_checkpoint, tiny_run

HOSTILE = "<script>alert('x')</script> & \"quotes\""
"""Text that must be escaped in HTML."""


@pytest.fixture(name="full_store")
def reported_run(store: Store) -> Store:
    """A run with everything that a report shows."""
    save_checkpoint(store, tiny_run(), 20)
    points = [
        {
            "step": step,
            "time": "2026-05-04T03:00:00+00:00",
            "loss": 1 / step,
            "learning_rate": 1e-4,
            "images_per_second": 123.4,
            "clips_per_second": 5.6,
            "phase_seconds": {"data": 0.1, "forward": 0.3},
        }
        for step in (10, 20)
    ]
    store.write_bytes(HISTORY_FILE, "\n".join(map(json.dumps, points)).encode())
    status = RunStatus(run="tiny-run", phase="failed", step=20, total_steps=40, message=HOSTILE)
    store.write_bytes(STATUS_FILE, status.model_dump_json(by_alias=True).encode())
    with EventLog(store) as events:
        events.record("start", ranks=2)
        events.record("skip", name=HOSTILE, reason="broken")
    probe = {"step": 20, "method": "knn", "accuracy": 0.7123, "spread": 0.01, "data": HOSTILE}
    probe |= {"baseline": 0.5, "neighbors": 20}
    store.write_bytes(PROBE_FILE, json.dumps(probe).encode())
    for step in (10, 20):
        drawn = png(Image.new("RGB", (60, 20), "red"), f"{HOSTILE}\nPSNR {step} dB")
        store.write_bytes(picture_key(step, "image"), drawn)
    return store
