"""`arlow curves`."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from arlow_trainer.storage.store import Store
from arlow_trainer.telemetry import HISTORY_FILE

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_the_curves_of_a_run(arlow, store: Store) -> None:
    points = [{"step": step, "time": "t", "loss": 1 / step} for step in (10, 20)]
    store.write_bytes(HISTORY_FILE, "\n".join(map(json.dumps, points)).encode())
    code, out, _ = arlow("curves", store.url)
    assert (code, out) == (0, "wrote the curves to curves.png\n")
    with Image.open("curves.png") as image:
        assert image.width > 1000


def test_a_run_without_history_is_reported(arlow, store: Store) -> None:
    code, _, err = arlow("curves", store.url)
    assert code == 74
    assert "holds no history yet" in err
