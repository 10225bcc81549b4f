"""Data sets in a folder, local or behind an fsspec URL: media files, parquet, arrow."""

from __future__ import annotations

import mmap
import os
import re
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from multiprocessing.reduction import DupFd
from pathlib import PurePosixPath
from typing import Any, BinaryIO, overload

from arlow_trainer.config import Modality, SourceSection
from arlow_trainer.config.errors import DataError
from arlow_trainer.data.decode import RawSample, Source, read_remote_sample
from arlow_trainer.data.errors import access_error
from arlow_trainer.data.fingerprint import Entry, sampled_positions, without_fingerprint
from arlow_trainer.data.table import open_saved, open_tables
from arlow_trainer.storage.connection import connect
from arlow_trainer.storage.remote_files import file_info, list_files
from arlow_trainer.storage.retries import with_retries

EXTENSIONS: dict[Modality, frozenset[str]] = {
    "image": frozenset(
        {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif"}
    ),
    "video": frozenset(
        {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".flv", ".wmv"}
    ),
}
# What `save_to_disk` writes beside its arrow files: for a set of splits, or for a single split.
_SPLITS_MARKER = "dataset_dict.json"
_SPLIT_MARKERS = {"state.json", "dataset_info.json"}
# Every ext4 volume has this folder at its root, and only root may read it.
_LOST_AND_FOUND = "lost+found"
_ITEM = array("Q").itemsize
_ASKING = 16
_SPLITS = ("train", "test", "validation", "valid", "val", "dev", "held-out")


def is_folder(path: str) -> bool:
    """Whether `SourceSection.path` names a folder rather than a Hugging Face data set."""
    return "://" in path or path.startswith(("/", "./", "../", "~")) or path in (".", "..")


def open_folder(section: SourceSection, modality: Modality) -> Source:
    """Opens a folder by what it holds: a saved data set, parquet, arrow, or media files.

    Raises DataError, CredentialsError, StoreError.
    """
    url = os.path.expanduser(section.path)
    files = store_names(_list(url, section.path))
    markers = {file for file in files if file == _SPLITS_MARKER or file in _SPLIT_MARKERS}
    if _SPLITS_MARKER in markers or markers >= _SPLIT_MARKERS:
        if "://" not in url:
            return open_saved(section, url, modality)
        tables = [file for file in files if file.endswith(".arrow")]
        chosen = _of_split(tables, section) if _SPLITS_MARKER in markers else tables
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
        """Returns one undecoded sample. Raises as `read_remote_sample` does."""
        file = self._files[position]
        name = f"{self.name.rstrip('/')}/{file}"
        fs, root = self._connected
        path = f"{root.rstrip('/')}/{file}"
        if _is_local(fs):
            return RawSample(name, path)
        # fsspec's own instance, which may be a newer one that read its credentials again.
        return read_remote_sample(name, connect(self._url)[0], path)

    def entries(self) -> list[Entry]:
        """Names, sizes and times of some files, spread evenly over the set."""
        fs, root = self._connected

        def entry(file: str) -> Entry:
            path = f"{root.rstrip('/')}/{file}"
            try:
                return Entry(file, *with_retries(file, lambda: file_info(fs, path)))
            except FileNotFoundError:
                return Entry(file, None, None)

        files = [self._files[position] for position in sampled_positions(len(self))]
        try:
            with ThreadPoolExecutor(_ASKING) as pool:
                return list(pool.map(entry, files))
        except Exception as error:
            return without_fingerprint(self.name, error)

    @cached_property
    def _connected(self) -> tuple[Any, str]:
        return connect(self._url)

    def __getstate__(self) -> dict[str, Any]:
        # Every decoding process makes a connection of its own.
        return {key: value for key, value in self.__dict__.items() if key != "_connected"}


def _list(url: str, path: str) -> Iterator[str]:
    """Yields all files below a folder, relative to it, sorted, without hidden ones."""
    try:
        fs, root = connect(url)
        if _is_local(fs):
            yield from _walk(root)
        else:
            found = with_retries(path, lambda: list_files(fs, root))
            yield from (file for file in found if not _is_hidden(file))
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such folder; give a folder that exists, or a Hugging Face data set's "
            "name without a leading / or ./"
        ) from None
    except NotADirectoryError:
        raise DataError(
            f"{path} is a file; data sets are folders: give the folder that holds it"
        ) from None
    except Exception as error:
        raise access_error(path, error) from error


def _walk(root: str, below: str = "") -> Iterator[str]:
    """Yields local files, a folder at a time; unlike fsspec, it skips no folder that fails."""
    with os.scandir(os.path.join(root, below)) as entries:
        # With its slash, a folder sorts as the paths in it do.
        names = sorted(
            f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name
            for entry in entries
            if not entry.name.startswith(".") and entry.name != _LOST_AND_FOUND
        )
    for name in names:
        if name.endswith("/"):
            yield from _walk(root, below + name)
        else:
            yield below + name


def _is_hidden(file: str) -> bool:
    return any(part.startswith(".") for part in file.split("/"))


def _open_media(
    section: SourceSection, url: str, files: FileNames, modality: Modality
) -> MediaSource:
    extensions = EXTENSIONS[modality]
    media = store_names(f for f in files if os.path.splitext(f)[1].lower() in extensions)
    if not media:
        expected = f"expected {modality}s ({', '.join(sorted(extensions))}), parquet or arrow files"
        if not files:
            raise DataError(f"{section.path} is empty; {expected}")
        found = sorted({PurePosixPath(f).suffix or f for f in files})
        count = f"{len(files):,} file{'' if len(files) == 1 else 's'}"
        raise DataError(f"{section.path} holds {count} ({', '.join(found[:8])}); {expected}")
    subfolders = {f.split("/")[0] for f in media if "/" in f}
    if section.split in subfolders:
        media = store_names(f for f in media if f.startswith(f"{section.split}/"))
    elif others := sorted(subfolders.intersection(_SPLITS)):
        raise _no_split(section, others)
    return MediaSource(section.path, url, media)


def _of_split(files: Sequence[str], section: SourceSection) -> list[str]:
    """Returns the files whose path names the split; all of them where no path names any split."""
    splits: dict[str, list[str]] = {}
    for file in files:
        parts = re.split(r"[^a-z0-9-]+|-(?=\d)", file.lower())
        named = next((s for s in (section.split.lower(), *_SPLITS) if s in parts), None)
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


def _is_local(fs: Any) -> bool:
    protocols = fs.protocol
    return "file" in ((protocols,) if isinstance(protocols, str) else protocols)


# File names, however many, outside the memory of the processes


class FileNames(Sequence[str]):
    """Names in a temporary file that a rank and its decoding processes map; see `store_names`."""

    def __init__(self, file: BinaryIO, count: int) -> None:
        self._file = file
        self._mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        # Where each name ends, after a zero.
        self._ends = memoryview(self._mapped)[-(count + 1) * _ITEM :].cast("Q")

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return os.fsdecode(self._mapped[self._ends[index] : self._ends[index + 1]])

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (DupFd(self._file.fileno()), len(self))


def store_names(names: Iterable[str]) -> FileNames:
    """Writes names to a temporary file, which takes eight bytes of memory for each meanwhile.

    The file has no name in its folder and is passed on by its descriptor, so that nothing remains
    however the processes end. Raises DataError where the temporary folder is full or missing.
    """
    ends = array("Q", [0])
    try:
        file = tempfile.TemporaryFile(prefix="arlow-names-")  # noqa: SIM115 - FileNames holds it
        for name in names:
            text = os.fsencode(name)
            file.write(text)
            ends.append(ends[-1] + len(text))
        file.write(ends.tobytes())
        file.flush()
    except OSError as error:
        raise DataError(
            f"the names of a set's files cannot be stored in the temporary folder: {error}; free "
            "some space there, or name another in TMPDIR"
        ) from error
    return FileNames(file, len(ends) - 1)


def _received(descriptor: Any, count: int) -> FileNames:
    return FileNames(os.fdopen(descriptor.detach(), "rb"), count)
