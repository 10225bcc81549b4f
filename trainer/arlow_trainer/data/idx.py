"""Converts labelled sets in MNIST's IDX files (LeCun et al., 1998) to parquet."""

from __future__ import annotations

import gzip
import io
import math
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from arlow_trainer.config.errors import DataError
from arlow_trainer.data.errors import access_error
from arlow_trainer.storage.connection import connect

Array = npt.NDArray[np.uint8]
Content = Literal["images", "labels"]

_UNSIGNED_BYTES = 0x08
_AXES: dict[Content, int] = {"images": 3, "labels": 1}
_SPLITS = {"train": "train", "t10k": "test", "test": "test"}
_FILE = re.compile(rf"({'|'.join(_SPLITS)})-(images|labels)[-.]idx[13]-ubyte(?:\.gz)?")


@dataclass(frozen=True)
class PreparedIdx:
    """A set that was written, in `<out>/<split>.parquet`."""

    out: str
    samples: dict[str, int]
    """Samples of every split."""
    classes: int
    """Different labels in all splits."""


def prepare_idx(folder: Path, out: str) -> PreparedIdx:
    """Writes a folder's IDX files as `<out>/train.parquet` and `<out>/test.parquet`.

    The files are `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same of `t10k` (or
    `test`), each plain or with `.gz`; at least one split must be there. The tables have the columns
    `image` (PNG) and `label` (a whole number). `out` is a local folder or an fsspec URL.

    Raises DataError, before anything is written, when files are missing, damaged or do not belong
    together; CredentialsError when `out` refuses access, StoreError when it is out of reach.
    """
    splits: dict[str, tuple[Array, Array]] = {}
    for split, files in _find(folder).items():
        images, labels = (read_idx(files[content], content) for content in _AXES)
        if len(images) != len(labels):
            raise DataError(
                f"{folder}: {files['images'].name} holds {len(images)} images, and "
                f"{files['labels'].name} {len(labels)} labels; give files of the same set"
            )
        splits[split] = images, labels
    for split, (images, labels) in splits.items():
        _write(f"{out.rstrip('/')}/{split}.parquet", _parquet(images, labels))
    classes = np.unique(np.concatenate([labels for _, labels in splits.values()]))
    samples = {split: len(labels) for split, (_, labels) in splits.items()}
    return PreparedIdx(out, samples, len(classes))


def read_idx(path: Path, content: Content) -> Array:
    """Reads an IDX file of unsigned bytes, gzipped or not.

    Returns:
        uint8 [samples, height, width] of images, [samples] of labels.

    Raises:
        DataError: the file cannot be read, is damaged, or holds something else.
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}; download it again") from None
    axes = _AXES[content]
    head = 4 + 4 * axes
    if len(data) < head or data[:4] != bytes([0, 0, _UNSIGNED_BYTES, axes]):
        raise DataError(
            f"{path} is not an IDX file of {content} (unsigned bytes on {axes} axes): it begins "
            f"with {data[:4].hex(' ') or 'nothing'}; give MNIST's original files or a similar set's"
        )
    shape = struct.unpack(f">{axes}I", data[4:head])
    if len(data) - head != math.prod(shape):
        raise DataError(
            f"{path} is damaged: its header says {' x '.join(map(str, shape))} bytes, and it holds "
            f"{len(data) - head}; download it again"
        )
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)


def _find(folder: Path) -> dict[str, dict[Content, Path]]:
    """Returns the files of every split, train first. Raises DataError."""
    splits: dict[str, dict[Content, Path]] = {}
    for path in sorted(folder.iterdir(), reverse=True):
        named = _FILE.fullmatch(path.name)
        if named is not None:
            content: Content = "images" if named[2] == "images" else "labels"
            splits.setdefault(_SPLITS[named[1]], {})[content] = path
    if not splits:
        raise DataError(
            f"{folder} holds no IDX files; they are called train-images-idx3-ubyte, "
            "train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, each "
            "plain or with .gz"
        )
    for split, files in splits.items():
        for content in _AXES.keys() - files.keys():
            raise DataError(f"{folder} lacks the {content} of {split}; put that file there too")
    return splits


def _parquet(images: Array, labels: Array) -> bytes:
    from datasets import Dataset, Features, Value, disable_progress_bars
    from datasets import Image as ImageFeature

    disable_progress_bars()  # each would have one step
    table = Dataset.from_dict(
        {"image": [{"bytes": _png(image)} for image in images], "label": labels.tolist()},
        features=Features({"image": ImageFeature(), "label": Value("int64")}),
    )
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    return buffer.getvalue()


def _png(image: Array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _write(target: str, content: bytes) -> None:
    try:
        fs, path = connect(target)
        fs.makedirs(fs._parent(path), exist_ok=True)
        fs.pipe_file(path, content)
    except Exception as error:
        raise access_error(target, error, "written") from error
