"""The demo's set: files that open, and the same ones when it is written again."""

from __future__ import annotations

from pathlib import Path

import pytest

from arlow_trainer.config import SourceSection
from arlow_trainer.config.errors import DataError
from arlow_trainer.data import RawSample, decode_image, open_source, write_demo_set


def test_writes_real_photographs_and_videos_that_open(tmp_path: Path) -> None:
    written = write_demo_set(tmp_path)
    assert written.train_images >= 20
    for modality, train, held_out in (
        ("image", written.train_images, ["chelsea.png", "coffee.png"]),
        ("video", written.train_videos, ["carphone_pristine.mp4"]),
    ):
        folder = tmp_path / f"{modality}s"
        assert len(open_source(SourceSection(path=str(folder)), modality)) == train
        assert sorted(p.name for p in (folder / "held-out").iterdir()) == held_out
        shown = {p.stem.split("-")[0] for p in (folder / "train").iterdir()}
        assert shown.isdisjoint(Path(name).stem for name in held_out)
    for image in (tmp_path / "images" / "train").iterdir():
        assert min(decode_image(RawSample(image.name, str(image))).size) >= 224


def test_writing_again_gives_the_same_set(tmp_path: Path) -> None:
    first = write_demo_set(tmp_path)
    assert write_demo_set(tmp_path) == first


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="the demo's set cannot be written"):
        write_demo_set(tmp_path / "file")
