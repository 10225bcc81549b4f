"""Data sets that are tables of Hugging Face `datasets`: hub, saved to disk, parquet, arrow."""

from __future__ import annotations

import glob
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arlow_trainer.config import Modality, SetSection, SourceSection
from arlow_trainer.config.errors import ArlowError, CredentialsError, DataError, StoreError
from arlow_trainer.config.shown_text import redact_urls
from arlow_trainer.data.decode import BrokenSample, RawSample, read_remote_sample
from arlow_trainer.data.errors import access_error, empty_set, root_cause
from arlow_trainer.data.fingerprint import Entry, without_fingerprint
from arlow_trainer.data.parquet import media_column_in, read_schema
from arlow_trainer.storage.options import AS_THE_ENVIRONMENT_SAYS, Access, access_to

if TYPE_CHECKING:
    from datasets import Dataset

PREPARE_UCF101 = (
    "download UCF101.rar and UCF101TrainTestSplits-RecognitionTask.zip from "
    "https://www.crcv.ucf.edu/data/UCF101.php, run `arlow data prepare ucf101 --archive UCF101.rar "
    "--splits UCF101TrainTestSplits-RecognitionTask.zip --out DIR`, then set data.videos.path=DIR"
)


@dataclass(frozen=True)
class SettingNames:
    """What the settings of a data set are called where the user gives them; for messages."""

    path: str
    name: str
    split: str
    column: str


def training_settings(modality: Modality) -> SettingNames:
    """Returns the fields of a run's file that name its images or videos."""
    section = f"data.{modality}s"
    return SettingNames(
        f"{section}.path", f"{section}.name", f"{section}.split", f"{section}.column"
    )


class TableSource:
    """A column of undecoded images or videos, memory-mapped."""

    def __init__(
        self,
        name: str,
        table: Dataset,
        column: str,
        folders: Sequence[str] = (),
        access: Access = AS_THE_ENVIRONMENT_SAYS,
    ) -> None:
        """Takes the folders that relative paths in the column are meant from, if there are any.

        `access` says how the files of paths are reached.
        """
        self.name = name
        self._table = table
        self._column = column
        self._folders = folders
        self._access = access

    def __len__(self) -> int:
        return len(self._table)

    def read(self, position: int) -> RawSample:
        """Returns one undecoded sample.

        Raises BrokenSample for an empty row, else as `read_remote_sample` does.
        """
        cell = self._table[position][self._column] or {}
        content, path = cell.get("bytes"), cell.get("path")
        # A path may be a signed URL.
        name = f"{self.name} row {position}" + (f" ({redact_urls(path)})" if path else "")
        if content is not None:
            return RawSample(name, content)
        if not path:
            raise BrokenSample(name, "the row is empty")
        location = self._located(path)
        if "://" in location:
            return read_remote_sample(name, *self._access.connect(location))
        return RawSample(name, location)

    def _located(self, path: str) -> str:
        """Returns where a path leads: of several folders of tables, the first that has the file."""
        if "://" in path or os.path.isabs(path) or not self._folders:
            return path
        candidates = [f"{folder}/{path}" for folder in self._folders]
        for candidate in candidates[:-1]:
            if "://" in candidate:
                fs, remote = self._access.connect(candidate)
                if fs.exists(remote):
                    return candidate
            elif os.path.lexists(candidate):
                return candidate
        return candidates[-1]

    def entries(self) -> list[Entry]:
        """The table's own fingerprint as a name, and sizes of its files; the cache's times say
        nothing of the data."""
        files = [Path(file["filename"]) for file in self._table.cache_files]
        try:
            sizes = [Entry(file.name, file.stat().st_size, None) for file in files]
        except OSError as error:
            return without_fingerprint(self.name, error)
        return [Entry(self._table._fingerprint, None, None), *sizes]


# Opening the sets of a run


def check_hub(section: SourceSection, modality: Modality) -> None:
    """Checks the name, configuration and split of a hub's data set, downloading no samples.

    Raises as `load_named` does.
    """
    from datasets import load_dataset_builder

    _leave_warnings_to_the_root_log()
    try:
        builder = load_dataset_builder(section.path, section.name)
        splits = [str(s) for s in builder.info.splits or builder.config.data_files or ()]
        # Slices and sums of splits are left to `load_named`.
        if splits and section.split.isidentifier() and section.split not in splits:
            raise _unknown_split(section, splits)
    except Exception as error:
        raise _load_error(section, training_settings(modality), error) from error


def open_hub(section: SourceSection, modality: Modality) -> TableSource:
    """Opens a data set of the hub by name, configuration, split and column.

    Raises DataError, CredentialsError, StoreError.
    """
    return _open(section, modality, load_named(section, training_settings(modality)))


def open_saved(section: SourceSection, path: str, modality: Modality) -> TableSource:
    """Opens what `save_to_disk` wrote to a local folder.

    Raises DataError, CredentialsError, StoreError.
    """
    return _open(section, modality, load_saved(section, path, training_settings(modality)))


def open_tables(
    section: SourceSection, kind: str, files: Sequence[str], modality: Modality
) -> TableSource:
    """Opens parquet or arrow files, local or remote, through the cache of `datasets`.

    Raises DataError, CredentialsError, StoreError.
    """
    from datasets import load_dataset

    # `datasets` takes the name of a file for a pattern.
    patterns = [glob.escape(file) for file in files]
    only: dict[str, Any] = {}
    access = access_to(section)
    if kind == "parquet" and (column := _column_of(files[0], modality, section.column, access)):
        # Other columns are not read, and may differ between the files.
        only["columns"] = [column]
    if access.options:
        only["storage_options"] = {access.scheme: dict(access.options)}

    def load() -> Dataset:
        with _own_files_without_hub():
            return load_dataset(kind, data_files={"train": patterns}, split="train", **only)

    table = _load(section, training_settings(modality), load)
    folders = list(dict.fromkeys(file.rpartition("/")[0] for file in files))
    return _open(section, modality, table, folders)


def _column_of(file: str, modality: Modality, column: str | None, access: Access) -> str | None:
    try:
        return media_column_in(read_schema(file, access), modality, column)
    except Exception:  # `datasets` says what is wrong
        return None


@contextmanager
def _own_files_without_hub() -> Iterator[None]:
    """Lets `datasets` read files of a store although HF_HUB_OFFLINE is set: they are not a hub's.

    Nothing is asked of the hub meanwhile: `huggingface_hub` has the setting too, and keeps it.
    """
    from datasets import config

    offline = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = False
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = offline


def _open(
    section: SourceSection, modality: Modality, table: Dataset, folders: Sequence[str] = ()
) -> TableSource:
    settings = training_settings(modality)
    column = media_column(section, table.features, modality, settings)
    access = access_to(section)
    return media_source(section.path, table, column, modality, settings, folders, access)


# Loading a table and choosing its column


def load_named(section: SetSection, settings: SettingNames) -> Dataset:
    """Loads a split of a data set by its name on the hub, or of a folder by its path.

    Raises DataError, CredentialsError, StoreError; they name the setting to change.
    """
    from datasets import load_dataset

    def load() -> Dataset:
        return load_dataset(section.path, section.name, split=section.split)

    return _load(section, settings, load)


def load_saved(section: SetSection, path: str, settings: SettingNames) -> Dataset:
    """Loads a split of what `save_to_disk` wrote to a local folder, or all where it has no splits.

    Raises DataError, CredentialsError, StoreError; they name the setting to change.
    """
    from datasets import DatasetDict, load_from_disk

    def load() -> Dataset:
        saved = load_from_disk(path)
        if not isinstance(saved, DatasetDict):
            return saved
        if section.split not in saved:
            raise _unknown_split(section, list(saved))
        return saved[section.split]

    return _load(section, settings, load)


def media_column(
    section: SetSection, features: dict[str, Any], modality: Modality, settings: SettingNames
) -> str:
    """Returns the column of images or videos: the section's, `image` or `video`, or the only one.

    Raises DataError.
    """
    columns = ", ".join(features)
    if section.column is not None:
        if section.column not in features:
            raise DataError(
                f"{section.path} has no column {section.column!r}; name one with "
                f"{settings.column} (columns: {columns})"
            )
        return section.column
    if modality in features:
        return modality
    of_type = [c for c, f in features.items() if type(f).__name__.lower() == modality]
    if len(of_type) != 1:
        found = f"{len(of_type)} columns of {modality}s" if of_type else f"no column of {modality}s"
        raise DataError(
            f"{section.path} has {found}; name one with {settings.column} (columns: {columns})"
        )
    return of_type[0]


def media_source(
    name: str,
    table: Dataset,
    column: str,
    modality: Modality,
    settings: SettingNames,
    folders: Sequence[str] = (),
    access: Access = AS_THE_ENVIRONMENT_SAYS,
) -> TableSource:
    """Returns the source of a column. Raises DataError where it holds no images or videos."""
    from datasets import Image, Video

    columns = ", ".join(table.column_names)
    if column not in table.features:
        raise DataError(
            f"{name} has no column {column!r}; name another with {settings.column} "
            f"(columns: {columns})"
        )
    undecoded = Image(decode=False) if modality == "image" else Video(decode=False)
    try:
        samples = table.select_columns([column]).cast_column(column, undecoded)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise DataError(
            f"{name}: column {column!r} holds {table.features[column]}, not {modality}s; "
            f"name another with {settings.column} (columns: {columns})"
        ) from error
    return TableSource(name, samples, column, folders, access)


def _load(section: SetSection, settings: SettingNames, load: Callable[[], Dataset]) -> Dataset:
    _leave_warnings_to_the_root_log()
    try:
        return load()
    except Exception as error:
        raise _load_error(section, settings, error) from error


def _leave_warnings_to_the_root_log() -> None:
    """Removes the handlers of Hugging Face's libraries, which would show each warning twice.

    And their progress bars, where they would fill a file.
    """
    from datasets import disable_progress_bars

    for library in ("datasets", "huggingface_hub"):
        logging.getLogger(library).handlers.clear()
    if not sys.stderr.isatty():
        disable_progress_bars()


def _unknown_split(section: SetSection, splits: Sequence[str]) -> ValueError:
    """Returns an error like that of `datasets`."""
    return ValueError(f"Unknown split {section.split!r}; there are: {', '.join(splits)}")


def _load_error(section: SetSection, settings: SettingNames, error: Exception) -> ArlowError:
    """Returns the error to raise where `datasets` could not load a set."""
    from datasets import config
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    path, text = section.path, str(error)
    ucf101_remedy = f"; {PREPARE_UCF101}" if path.split("/")[-1] == "ucf101" else ""
    if isinstance(error, DatasetNotFoundError):
        if "gated" in text:
            return CredentialsError(
                f"{path} is gated: accept its terms at https://huggingface.co/datasets/{path} "
                "with your account, then run `hf auth login` or set HF_TOKEN (in a cluster: the "
                "secret that the pods get it from)"
            )
        return DataError(
            f"{path}: no such data set on the Hugging Face hub, or it is private; check "
            f"{settings.path} (a folder starts with /, ./, ../ or ~), or, if it is private, run "
            f"`hf auth login` or set HF_TOKEN{ucf101_remedy}"
        )
    if isinstance(error, RuntimeError) and "scripts are no longer supported" in text:
        remedy = ucf101_remedy or (
            f"; name a set with {settings.path} that holds parquet or media files, or a folder of "
            "them"
        )
        return DataError(f"{path} is a script, which `datasets` no longer runs{remedy}")
    # How `datasets` fails on a table without rows, in its cache and saved to disk.
    if "corresponds to no data" in text or isinstance(error, IndexError):
        return empty_set(path, settings.path, settings.split)
    if "split" in text and isinstance(error, ValueError):
        return DataError(
            f"{path} has no split {section.split!r} ({root_cause(error)}); name one with "
            f"{settings.split}. A folder has the splits that its files or subfolders are named "
            "after: train/, test/"
        )
    if "onfig" in text and isinstance(error, ValueError):
        return DataError(f"{path}: {' '.join(text.split())}; set {settings.name}")
    if isinstance(error, ConnectionError):
        if config.HF_HUB_OFFLINE:
            return DataError(
                f"{path} is not in the local cache, and HF_HUB_OFFLINE is set, so that the hub "
                f"cannot be reached: unset it, or point {settings.path} at a local folder"
                f"{ucf101_remedy}"
            )
        return StoreError(
            f"{path}: the Hugging Face hub cannot be reached and the set is not in the local "
            f"cache ({root_cause(error)}); check the network or a proxy, or point {settings.path} "
            f"at a folder{ucf101_remedy}"
        )
    if isinstance(error, (DatasetsError, ValueError)):
        return DataError(f"{path}: cannot be read: {root_cause(error)}")
    return access_error(path, error)
