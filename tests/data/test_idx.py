"""Labelled sets in MNIST's format become tables that runs and probes read."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from arlow_trainer.config import SourceSection
from arlow_trainer.config.errors import DataError
from arlow_trainer.data import decode_image, open_source
from arlow_trainer.data.idx import prepare_idx, read_idx

IMAGES = np.arange(6 * 5 * 4, dtype=np.uint8).reshape(6, 5, 4)
LABELS = np.array([3, 0, 1, 0, 3, 9], np.uint8)


def idx_bytes(values: np.ndarray) -> bytes:
    shape = np.array(values.shape, ">u4").tobytes()
    return bytes([0, 0, 8, values.ndim]) + shape + values.tobytes()


def write_set(folder: Path, splits: tuple[str, ...] = ("train", "t10k")) -> Path:
    folder.mkdir(exist_ok=True)
    for split in splits:
        count = 6 if split == "train" else 4
        (folder / f"{split}-images-idx3-ubyte").write_bytes(idx_bytes(IMAGES[:count]))
        labels = gzip.compress(idx_bytes(LABELS[:count]))
        (folder / f"{split}-labels-idx1-ubyte.gz").write_bytes(labels)
    return folder


def test_files_plain_and_gzipped_are_read(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "idx")
    assert np.array_equal(read_idx(folder / "train-images-idx3-ubyte", "images"), IMAGES)
    assert np.array_equal(read_idx(folder / "train-labels-idx1-ubyte.gz", "labels"), LABELS)


def test_a_set_becomes_tables_with_the_same_pixels(tmp_path: Path) -> None:
    from datasets import load_dataset

    out = tmp_path / "out"
    made = prepare_idx(write_set(tmp_path / "idx"), str(out))
    assert (made.samples, made.classes) == ({"train": 6, "test": 4}, 4)
    for split, count in made.samples.items():
        table = load_dataset(str(out), split=split)
        assert table["label"][:] == LABELS[:count].tolist()
        source = open_source(SourceSection(path=str(out), split=split), "image")
        assert len(source) == count
        for position in range(count):
            pixels = np.array(decode_image(source.read(position)))
            assert np.array_equal(pixels, np.repeat(IMAGES[position][..., None], 3, axis=2))


def test_one_split_alone_will_do(tmp_path: Path) -> None:
    made = prepare_idx(write_set(tmp_path / "idx", ("train",)), str(tmp_path / "out"))
    assert made.samples == {"train": 6}


# Without the time: every test process names its cases by this content.
CUT_GZIP = gzip.compress(idx_bytes(LABELS), mtime=0)[:15]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte", b"", "is not an IDX file of images .* begins with nothing"),
        ("train-images-idx3-ubyte", b"PNG and more", "begins with 50 4e 47 20"),
        ("train-images-idx3-ubyte", idx_bytes(LABELS), "is not an IDX file of images"),
        (
            "train-images-idx3-ubyte",
            idx_bytes(IMAGES)[:-1],
            "its header says 6 x 5 x 4 bytes, and it holds 119",
        ),
        ("train-images-idx3-ubyte", idx_bytes(IMAGES[:5]), "5 images, and .* 6 labels"),
        ("train-labels-idx1-ubyte.gz", CUT_GZIP, "cannot be read: "),
        ("train-labels-idx1-ubyte.gz", None, "lacks the labels of train"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_written(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    folder = write_set(tmp_path / "idx")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        prepare_idx(folder, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no IDX files; they are called train-images-idx3"):
        prepare_idx(tmp_path, str(tmp_path / "out"))
