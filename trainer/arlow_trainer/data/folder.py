"""Sets that lie in a folder, local or behind an fsspec URL: media files, parquet, arrow."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np

from arlow_trainer.config import SourceSection
from arlow_trainer.config.errors import DataError

from .choice import Modality
from .remote import read_remote, unreachable
from .sample import RawSample
from .table import open_saved, open_tables

if TYPE_CHECKING:
    from .sources import Source

EXTENSIONS: dict[Modality, frozenset[str]] = {
    "image": frozenset(
        {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif"}
    ),
    "video": frozenset(
        {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".flv", ".wmv"}
    ),
}
_SPLITS = ("train", "test", "validation", "valid", "val", "dev", "held-out")


def is_folder(path: str) -> bool:
    """Tells whether `SourceSection.path` names a folder rather than a Hugging Face data set."""
    return "://" in path or path.startswith(("/", "./", "../", "~")) or path in (".", "..")


def open_folder(section: SourceSection, modality: Modality) -> Source:
    """Opens a folder by what it holds: a saved data set, parquet, arrow, or media files.

    Raises DataError, CredentialsError, StoreError.
    """
    url = os.path.expanduser(section.path)
    files = _list(url, section.path)
    tops = {file for file in files if "/" not in file}
    if "dataset_dict.json" in tops or {"state.json", "dataset_info.json"} <= tops:
        if "://" not in url:
            return open_saved(section, url, modality)
        files = [file for file in files if file.endswith(".arrow")]
        chosen = _of_split(files, section) if "dataset_dict.json" in tops else files
        return open_tables(section, "arrow", _join(url, chosen), modality)
    for kind in ("parquet", "arrow"):
        tables = [file for file in files if file.endswith(f".{kind}")]
        if tables:
            return open_tables(section, kind, _join(url, _of_split(tables, section)), modality)
    return _open_media(section, url, files, modality)


class MediaSource:
    """Media files of a folder: local ones by path, remote ones read when they are asked for."""

    def __init__(self, name: str, url: str, files: Sequence[str]) -> None:
        self.name = name
        self._url = url
        # One array rather than a list of str: millions of names are copied to every worker.
        self._files = np.array([os.fsencode(file) for file in files])

    def __len__(self) -> int:
        return len(self._files)

    def read(self, position: int) -> RawSample:
        """Returns one undecoded sample. Raises BrokenSample, or what `patiently` does."""
        file = os.fsdecode(self._files[position])
        name = f"{self.name.rstrip('/')}/{file}"
        filesystem, root = self._filesystem
        path = f"{root.rstrip('/')}/{file}"
        if _is_local(filesystem):
            return RawSample(name, path)
        return RawSample(name, read_remote(name, filesystem, path))

    @cached_property
    def _filesystem(self) -> tuple[Any, str]:
        filesystem, root = fsspec.url_to_fs(self._url)
        return filesystem, str(root)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_filesystem"}


def _list(url: str, path: str) -> list[str]:
    """Returns all files below a folder, relative to it, sorted, without hidden ones."""
    try:
        filesystem, root = fsspec.url_to_fs(url)
        found = filesystem.find(root)
        exists = bool(found) or filesystem.isdir(root)
    except FileNotFoundError:
        exists, found = False, []
    except Exception as error:
        raise unreachable(path, error) from error
    if not exists:
        raise DataError(
            f"{path}: no such folder; give a folder that exists, or a Hugging Face data set's "
            "name without a leading / or ./"
        )
    prefix = f"{str(root).rstrip('/')}/"
    if found == [str(root)]:
        raise DataError(f"{path} is a file; data sets are folders: give the folder that holds it")
    relative = (file.removeprefix(prefix) for file in found)
    return sorted(f for f in relative if not any(p.startswith(".") for p in f.split("/")))


def _open_media(
    section: SourceSection, url: str, files: Sequence[str], modality: Modality
) -> MediaSource:
    media = [f for f in files if PurePosixPath(f).suffix.lower() in EXTENSIONS[modality]]
    if not media:
        held = sorted({PurePosixPath(f).suffix or f for f in files})
        holds = f"{len(files)} files ({', '.join(held[:8])})" if files else "nothing"
        raise DataError(
            f"{section.path} holds no {modality}s, no parquet and no arrow files, but {holds}; "
            f"{modality}s end in {', '.join(sorted(EXTENSIONS[modality]))}"
        )
    tops = {f.split("/")[0] for f in media if "/" in f}
    if section.split in tops:
        media = [f for f in media if f.startswith(f"{section.split}/")]
    elif others := sorted(tops.intersection(_SPLITS)):
        raise _no_split(section, others)
    return MediaSource(section.path, url, media)


def _of_split(files: Sequence[str], section: SourceSection) -> list[str]:
    """Returns the files whose path names the split; all of them where no path names any split."""
    splits: dict[str, list[str]] = {}
    for file in files:
        words = re.split(r"[^a-z0-9-]+|-(?=\d)", file.lower())
        named = next((s for s in (section.split.lower(), *_SPLITS) if s in words), None)
        if named is not None:
            splits.setdefault(named, []).append(file)
    if not splits:
        return list(files)
    if section.split.lower() not in splits:
        raise _no_split(section, sorted(splits))
    return splits[section.split.lower()]


def _no_split(section: SourceSection, splits: Sequence[str]) -> DataError:
    return DataError(
        f"{section.path} has no split {section.split!r}; there are: {', '.join(splits)}"
    )


def _join(url: str, files: Sequence[str]) -> list[str]:
    return [f"{url.rstrip('/')}/{file}" for file in files]


def _is_local(filesystem: Any) -> bool:
    protocol = filesystem.protocol
    return "file" in ((protocol,) if isinstance(protocol, str) else protocol)
