"""Sets that lie in a folder, local or behind an fsspec URL: media files, parquet, arrow."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import fsspec

from arlow_trainer.config import SourceSection
from arlow_trainer.config.errors import DataError
from arlow_trainer.data.decode import RawSample, Source
from arlow_trainer.data.names import FileNames, keep_names
from arlow_trainer.data.order import Modality
from arlow_trainer.data.remote import read_remote, unreachable
from arlow_trainer.data.table import open_saved, open_tables

EXTENSIONS: dict[Modality, frozenset[str]] = {
    "image": frozenset(
        {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif"}
    ),
    "video": frozenset(
        {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".flv", ".wmv"}
    ),
}
_MARKS = ("dataset_dict.json", "state.json", "dataset_info.json")
# Every volume of ext4 has one at its top, and only root may read it.
_LOST = "lost+found"
_SPLITS = ("train", "test", "validation", "valid", "val", "dev", "held-out")


def is_folder(path: str) -> bool:
    """Tells whether `SourceSection.path` names a folder rather than a Hugging Face data set."""
    return "://" in path or path.startswith(("/", "./", "../", "~")) or path in (".", "..")


def open_folder(section: SourceSection, modality: Modality) -> Source:
    """Opens a folder by what it holds: a saved data set, parquet, arrow, or media files.

    Raises DataError, CredentialsError, StoreError.
    """
    url = os.path.expanduser(section.path)
    files = keep_names(_list(url, section.path))
    marks = {file for file in files if file in _MARKS}
    if "dataset_dict.json" in marks or {"state.json", "dataset_info.json"} <= marks:
        if "://" not in url:
            return open_saved(section, url, modality)
        tables = [file for file in files if file.endswith(".arrow")]
        chosen = _of_split(tables, section) if "dataset_dict.json" in marks else tables
        return open_tables(section, "arrow", _join(url, chosen), modality)
    for kind in ("parquet", "arrow"):
        tables = [file for file in files if file.endswith(f".{kind}")]
        if tables:
            return open_tables(section, kind, _join(url, _of_split(tables, section)), modality)
    return _open_media(section, url, files, modality)


class MediaSource:
    """Media files of a folder: local ones by path, remote ones read when they are asked for."""

    def __init__(self, name: str, url: str, files: FileNames) -> None:
        self.name = name
        self._url = url
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def read(self, position: int) -> RawSample:
        """Returns one undecoded sample. Raises BrokenSample, or what `with_retries` does."""
        file = self._files[position]
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


def _list(url: str, path: str) -> Iterator[str]:
    """Yields all files below a folder, relative to it, sorted, without hidden ones."""
    empty = True
    try:
        filesystem, root = fsspec.url_to_fs(url)
        for file in _walk(root) if _is_local(filesystem) else _find(filesystem, root):
            empty = False
            yield file
        exists = not empty or filesystem.isdir(root)
    except FileNotFoundError:
        exists = False
    except NotADirectoryError:
        raise DataError(
            f"{path} is a file; data sets are folders: give the folder that holds it"
        ) from None
    except Exception as error:
        raise unreachable(path, error) from error
    if not exists:
        raise DataError(
            f"{path}: no such folder; give a folder that exists, or a Hugging Face data set's "
            "name without a leading / or ./"
        )


def _walk(root: str, below: str = "") -> Iterator[str]:
    """Yields local files, a folder at a time; unlike fsspec, it passes over none that fails."""
    with os.scandir(os.path.join(root, below)) as entries:
        # With its slash, a folder sorts as the paths in it do.
        names = sorted(
            f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name
            for entry in entries
            if not entry.name.startswith(".") and entry.name != _LOST
        )
    for name in names:
        if name.endswith("/"):
            yield from _walk(root, below + name)
        else:
            yield below + name


def _find(filesystem: Any, root: str) -> Iterator[str]:
    """Yields remote files, listed in one go."""
    found = filesystem.find(root)
    if found == [root]:
        raise NotADirectoryError
    relative = (file.removeprefix(f"{root.rstrip('/')}/") for file in found)
    yield from sorted(f for f in relative if not any(p.startswith(".") for p in f.split("/")))


def _open_media(
    section: SourceSection, url: str, files: FileNames, modality: Modality
) -> MediaSource:
    extensions = EXTENSIONS[modality]
    media = keep_names(f for f in files if os.path.splitext(f)[1].lower() in extensions)
    if not media:
        expected = f"expected {modality}s ({', '.join(sorted(extensions))}), parquet or arrow files"
        if not files:
            raise DataError(f"{section.path} is empty; {expected}")
        held = sorted({PurePosixPath(f).suffix or f for f in files})
        count = f"{len(files):,} file{'' if len(files) == 1 else 's'}"
        raise DataError(f"{section.path} holds {count} ({', '.join(held[:8])}); {expected}")
    tops = {f.split("/")[0] for f in media if "/" in f}
    if section.split in tops:
        media = keep_names(f for f in media if f.startswith(f"{section.split}/"))
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
