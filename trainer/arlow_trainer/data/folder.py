"""Data sets in a folder, local or behind an fsspec URL: media files, parquet, arrow."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from arlow_trainer.config import Modality, SourceSection
from arlow_trainer.config.errors import DataError
from arlow_trainer.data.decode import BrokenSample, Source, decode_image
from arlow_trainer.data.errors import access_error
from arlow_trainer.data.file_names import FileNames, store_names
from arlow_trainer.data.files import MediaSource, is_local
from arlow_trainer.data.formats import TABLES, extension, extensions, is_data
from arlow_trainer.data.lists import LISTS, open_list
from arlow_trainer.data.parquet import media_tables
from arlow_trainer.data.splits import Chosen, NoSuchSplit, choose_split
from arlow_trainer.data.table import TableSource, open_saved, open_tables
from arlow_trainer.data.video import decode_clip
from arlow_trainer.storage.options import Access, access_to
from arlow_trainer.storage.remote_files import list_files, read_file
from arlow_trainer.storage.retries import with_retries

# What `save_to_disk` writes beside its arrow files: for a set of splits, or for a single split.
_SPLITS_MARKER = "dataset_dict.json"
_SPLIT_MARKERS = {"state.json", "dataset_info.json"}
_TRIED = 4
_NAMED_EXTENSIONS = 8


@dataclass(frozen=True)
class Selection:
    """What of a folder is a set, for its owner to see."""

    used: int
    """Files of the set: media, or tables."""
    of: int
    """Files that would be, if all of them belonged to the split."""
    split: str | None
    """None where the folder has no splits."""
    passed_over: Mapping[str, int]
    """How many of the other files there are, by extension, the most first."""
    formats: Mapping[str, int] = field(default_factory=dict)
    """How many of the files used there are, by extension, the most first."""
    splits: Mapping[str, int] = field(default_factory=dict)
    """How many files each split of the folder has, the most first."""

    def __str__(self) -> str:
        split = f"split {self.split}" if self.split else "no splits"
        text = f"using {self.used:,} of {self.of:,} files ({split})"
        if not self.passed_over:
            return text
        named = [f"{name} {count:,}" for name, count in self.passed_over.items()]
        rest = ", ..." if len(named) > _NAMED_EXTENSIONS else ""
        total = sum(self.passed_over.values())
        return f"{text}; passing over {total:,}: {', '.join(named[:_NAMED_EXTENSIONS])}{rest}"


def is_folder(path: str) -> bool:
    """Whether `SourceSection.path` names a folder rather than a Hugging Face data set.

    `datasets` prefers what is here under a set's name as well, but reads it by other rules.
    """
    marked = "://" in path or path.startswith(("/", "./", "../", "~")) or path in (".", "..")
    return marked or os.path.exists(path)


def open_folder(section: SourceSection, modality: Modality) -> tuple[Source, Selection | None]:
    """Opens a folder by what it holds: a saved data set, parquet, arrow, or media files.

    Also a single table, and a list of files (`LISTS`): all of it, whatever the split. Returns with
    it what was chosen, except of sets that say so themselves. Raises DataError, CredentialsError,
    StoreError.
    """
    url = os.path.expanduser(section.path)
    access = access_to(section)
    if extension(url) in (*LISTS, *TABLES) and _is_file(url, section.path, access):
        if extension(url) in LISTS or not media_tables([url], modality, section.column, access):
            named = open_list(section, url, modality)
            return named, Selection(len(named), len(named), None, {})
        table = open_tables(section, TABLES[extension(url)], [url], modality)
        return table, Selection(1, 1, None, {}, {extension(url): 1})
    files = store_names(_list(url, section.path, access))
    top = {file for file in files if file == _SPLITS_MARKER or file in _SPLIT_MARKERS}
    if _SPLITS_MARKER in top or top >= _SPLIT_MARKERS:
        if "://" not in url:
            return open_saved(section, url, modality), None
        return _open_saved_in_store(section, url, _SPLITS_MARKER in top, modality), None
    tables = [file for file in files if extension(file) in TABLES]
    wanted = extensions(modality)
    if tables and any(extension(file) in wanted for file in files):
        # Else they may be about the media beside them.
        holding = set(media_tables(_join(url, tables), modality, section.column, access))
        tables = [file for file in tables if _join(url, [file])[0] in holding]
    if tables:
        return _open_tables(section, url, files, tables, modality)
    return _open_media(section, url, files, modality)


def _open_tables(
    section: SourceSection, url: str, files: FileNames, tables: Sequence[str], modality: Modality
) -> tuple[TableSource, Selection]:
    kinds = {TABLES[extension(file)] for file in tables}
    kind = "parquet" if "parquet" in kinds else "arrow"
    of_kind = [file for file in tables if TABLES[extension(file)] == kind]
    if len(of_kind) > 1:
        access = access_to(section)
        holding = set(media_tables(_join(url, of_kind), modality, section.column, access))
        of_kind = [file for file in of_kind if _join(url, [file])[0] in holding] or of_kind
    split = _split(section, of_kind, tables=True)
    chosen = [file for file in of_kind if split.has(file)]
    others = Counter(extension(file) or "no extension" for file in files)
    others.subtract(extension(file) for file in of_kind)
    selection = Selection(
        len(chosen),
        len(of_kind),
        split.split,
        _counted(others),
        _counted(Counter(map(extension, chosen))),
        split.splits,
    )
    return open_tables(section, kind, _join(url, chosen), modality), selection


def _open_saved_in_store(
    section: SourceSection, url: str, has_splits: bool, modality: Modality
) -> TableSource:
    """Opens what `save_to_disk` wrote to a store, by the names that it wrote beside the tables."""

    def read(name: str) -> Any:
        try:
            fs, root = access_to(section).connect(url)
            path = f"{root.rstrip('/')}/{name}"
            return json.loads(with_retries(name, lambda: read_file(fs, path)))
        except Exception as error:
            raise access_error(f"{section.path}/{name}", error) from error

    folder = ""
    try:
        if has_splits:
            splits = read(_SPLITS_MARKER)["splits"]
            if section.split not in splits:
                raise _no_split(section, splits)
            folder = f"{section.split}/"
        shards = [folder + part["filename"] for part in read(f"{folder}state.json")["_data_files"]]
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{section.path}: {folder}state.json or {_SPLITS_MARKER} is not as `save_to_disk` "
            f"writes it ({error!r}); save the set again"
        ) from error
    return open_tables(section, "arrow", _join(url, shards), modality)


def _open_media(
    section: SourceSection, url: str, files: FileNames, modality: Modality
) -> tuple[MediaSource, Selection]:
    wanted = extensions(modality)
    others = Counter(extension(file) for file in files)
    if others[""] and _bare_files_decode(section, url, files, modality):
        wanted |= {""}
    formats = Counter({each: others.pop(each, 0) for each in wanted})
    of = formats.total()
    if not of:
        expected = f"expected {modality}s ({', '.join(sorted(wanted))}), parquet or arrow files"
        if not files:
            raise DataError(f"{section.path} is empty; {expected}")
        count = f"{len(files):,} file{'' if len(files) == 1 else 's'}"
        found = ", ".join(list(_counted(others))[:_NAMED_EXTENSIONS])
        raise DataError(f"{section.path} holds {count} ({found}); {expected}")
    media = store_names(file for file in files if extension(file) in wanted)
    split = _split(section, media, tables=False)
    used = media
    if split.split is not None:
        used = store_names(file for file in media if split.has(file))
        formats = Counter(map(extension, used))
    source = MediaSource(section.path, url, used, access_to(section))
    return source, Selection(
        len(used), of, split.split, _counted(others), _counted(formats), split.splits
    )


def _bare_files_decode(
    section: SourceSection, url: str, files: FileNames, modality: Modality
) -> bool:
    """Whether those without extension are media: most of a few that are spread over them decode."""
    bare = store_names(file for file in files if not extension(file))
    source = MediaSource(section.path, url, bare, access_to(section))
    tried = sorted({number * len(bare) // _TRIED for number in range(_TRIED)})
    decoded = 0
    for position in tried:
        try:
            raw = source.read(position)
            if modality == "image":
                decode_image(raw)
            else:
                decode_clip(raw, frames=1, stride=1)
            decoded += 1
        except BrokenSample:
            continue
    return 2 * decoded > len(tried)


def _split(section: SourceSection, files: Sequence[str], *, tables: bool) -> Chosen:
    try:
        return choose_split(files, section.split, tables=tables)
    except NoSuchSplit as error:
        raise _no_split(section, error.there_are) from None


def _no_split(section: SourceSection, splits: Sequence[str]) -> DataError:
    there_are = f"there are: {', '.join(splits)}" if splits else "it has no splits"
    return DataError(f"{section.path} has no split {section.split!r}; {there_are}")


def _counted(others: Counter[str]) -> dict[str, int]:
    """Returns the counts by extension, the most first."""
    return {name or "no extension": n for name, n in others.most_common() if n > 0}


def _join(url: str, files: Sequence[str]) -> list[str]:
    return [f"{url.rstrip('/')}/{file}" for file in files]


# Listing


def _is_file(url: str, path: str, access: Access) -> bool:
    """Whether there is a file; neither where there is nothing, nor a folder of such a name."""
    try:
        fs, root = access.connect(url)
        if is_local(fs):
            return os.path.isfile(root)
        return bool(with_retries(path, lambda: fs.isfile(root)))
    except Exception as error:
        raise access_error(path, error) from error


def _list(url: str, path: str, access: Access) -> Iterator[str]:
    """Yields all files below a folder, relative to it, sorted, without those that hold no data."""
    try:
        fs, root = access.connect(url)
        if is_local(fs):
            yield from _walk(root, [os.path.realpath(root)])
        else:
            found = with_retries(path, lambda: list_files(fs, root))
            yield from (file for file in found if all(map(is_data, file.split("/"))))
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such folder; give a folder that exists, or a Hugging Face data set's "
            "name without a leading / or ./"
        ) from None
    except NotADirectoryError:
        raise DataError(
            f"{path} is a file, and neither a table ({', '.join(TABLES)}) nor a list of files "
            f"({', '.join(LISTS)}); give the folder that holds it"
        ) from None
    except Exception as error:
        raise access_error(path, error) from error


def _walk(root: str, followed: list[str], below: str = "") -> Iterator[str]:
    """Yields local files, a folder at a time; unlike fsspec, it skips no folder that fails.

    `followed` holds the real paths of `root` and of the folders that links have led to.
    """
    with os.scandir(os.path.join(root, below)) as entries:
        found = sorted((e for e in entries if is_data(e.name)), key=lambda entry: entry.name)
    # With its slash, a folder sorts as the paths in it do.
    for name in sorted(filter(None, (_name(entry, followed) for entry in found))):
        if name.endswith("/"):
            yield from _walk(root, followed, below + name)
        else:
            yield below + name


def _name(entry: os.DirEntry[str], followed: list[str]) -> str | None:
    """Returns the name of an entry, with a slash of a folder to walk.

    None for a link to a folder that is walked anyway: each is walked once, and none in a circle.
    """
    if not entry.is_symlink():
        return f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name
    try:
        if not entry.is_dir():
            return entry.name
    except OSError:  # a loop: a broken file
        return entry.name
    target = os.path.realpath(entry.path)
    root = followed[0]
    if target.startswith(f"{root}/") and all(map(is_data, target[len(root) + 1 :].split("/"))):
        return None
    if any(f"{path}/".startswith(f"{target}/") for path in followed):
        return None
    followed.append(target)
    return f"{entry.name}/"
