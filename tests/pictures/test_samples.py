"""The samples to reconstruct: a user's files, and samples of a run's data sets."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from arlow_trainer.config import SourceSection
from arlow_trainer.config.errors import ConfigError, DataError
from arlow_trainer.data import center_view, open_source
from arlow_trainer.pictures.samples import check_mask_ratio, first_sample, read_file
from support.stored_run import tiny_run

TRAINING = tiny_run().spec.training


def test_a_photograph_is_one_frame_in_centre_view(photograph: Path) -> None:
    frames = read_file(photograph, TRAINING.data)
    with Image.open(photograph) as image:
        assert np.array_equal(frames, center_view([image.convert("RGB")], 32))


def test_a_video_is_a_clip(video_file: Path) -> None:
    frames = read_file(video_file, TRAINING.data)
    assert frames.shape == (TRAINING.data.clip_frames, 32, 32, 3)
    assert not np.array_equal(frames[0], frames[-1])


def test_a_broken_file_is_reported(photograph: Path, video_file: Path, tmp_path: Path) -> None:
    for source in (photograph, video_file):
        broken = tmp_path / source.name
        broken.write_bytes(source.read_bytes()[:3000])
        with pytest.raises(DataError, match=rf"{broken}.*other programs can open"):
            read_file(broken, TRAINING.data)


def test_the_first_sample_that_can_be_decoded_is_taken(photograph: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    shutil.copy(photograph, tmp_path / "b.png")
    source = open_source(SourceSection(path=str(tmp_path)), "image")
    name, frames = first_sample(source, "image", TRAINING.data)
    assert name.endswith("b.png")
    assert np.array_equal(frames, read_file(photograph, TRAINING.data))


def test_a_set_without_a_readable_sample_is_reported(photograph: Path, tmp_path: Path) -> None:
    shutil.copy(photograph, tmp_path / "a.png")
    source = open_source(SourceSection(path=str(tmp_path)), "image")
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"no sample to reconstruct: .*the file is gone"):
        first_sample(source, "image", TRAINING.data)


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.99, 1.0])
def test_a_mask_that_hides_all_or_nothing_is_refused(ratio: float) -> None:
    with pytest.raises(ConfigError, match=f"--mask-ratio {ratio}: must hide some but not all"):
        check_mask_ratio(TRAINING.mae.model_copy(update={"mask_ratio": ratio}), TRAINING)


@pytest.mark.parametrize("ratio", [0.04, 0.5, 0.95])
def test_other_masks_are_not(ratio: float) -> None:
    check_mask_ratio(TRAINING.mae.model_copy(update={"mask_ratio": ratio}), TRAINING)
