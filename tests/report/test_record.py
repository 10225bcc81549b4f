"""What is read from a run's store for its report."""

from __future__ import annotations

import io
import os
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from arlow_trainer.config.errors import StoreError
from arlow_trainer.pictures.drawing import DESCRIPTION
from arlow_trainer.pictures.stored import StoredPicture, list_pictures, picture_key
from arlow_trainer.report.page import page
from arlow_trainer.report.record import MAX_PICTURES, chosen_pictures, read_record
from arlow_trainer.storage.store import Store
from arlow_trainer.telemetry.times import utc_now


def test_a_step_chooses_the_checkpoint(full_store: Store) -> None:
    record = read_record(full_store, 10)
    assert record.state is not None
    assert record.state.step == 10


def test_a_store_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no run"):
        read_record(Store(str(tmp_path)))


def test_a_damaged_picture_is_reported(full_store: Store) -> None:
    key = picture_key(20, "image")
    full_store.write_bytes(key, full_store.read_bytes(key)[:60])
    with pytest.raises(StoreError, match=rf"{key} is damaged.*delete it"):
        read_record(full_store)


def test_files_that_cannot_be_read_are_left_out(full_store: Store) -> None:
    folder = full_store.local_path
    if folder is None:
        pytest.skip("only a local folder holds pipes and folders in place of files")
    whole = read_record(full_store)
    for name in ("history.jsonl", "events.jsonl", "status.json"):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
    record = read_record(full_store)
    assert [reason.split(": ")[0].rpartition("/")[2] for reason in record.unread] == [
        "status.json",
        "history.jsonl",
        "events.jsonl",
    ]
    assert (record.history, record.events, record.status) == ([], [], None)
    assert record.checkpoints == whole.checkpoints
    assert record.state == whole.state
    assert "<h1>" in page(record, utc_now())


def test_pictures_keep_size_and_description(full_store: Store) -> None:
    picture = read_record(full_store).pictures[-1]
    assert (picture.step, picture.modality) == (20, "image")
    assert picture.description.endswith("PSNR 20 dB")
    with Image.open(io.BytesIO(picture.webp)) as image:
        assert image.size == (picture.width, picture.height) == (60, 20)
        assert DESCRIPTION not in image.info


def test_many_pictures_are_thinned_from_first_to_last(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for step in range(0, 5000, 100):
        store.write_bytes(picture_key(step, "image"), b"")
    store.write_bytes(picture_key(3, "video"), b"")
    chosen = chosen_pictures(list_pictures(store))
    steps = [each.step for each in chosen if each.modality == "image"]
    assert len(steps) == MAX_PICTURES
    assert (steps[0], steps[-1]) == (0, 4900)
    assert max(b - a for a, b in pairwise(steps)) == 700
    assert chosen[-1] == StoredPicture(3, "video", "pictures/step-3-video.png")
    assert chosen_pictures([]) == []
