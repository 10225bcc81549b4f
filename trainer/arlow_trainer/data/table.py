"""Sets that are tables of Hugging Face `datasets`: hub, saved to disk, parquet, arrow."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import fsspec

from arlow_trainer.config import SourceSection
from arlow_trainer.config.errors import ArlowError, CredentialsError, DataError, StoreError
from arlow_trainer.data.decode import BrokenSample, RawSample
from arlow_trainer.data.order import Modality
from arlow_trainer.data.remote import empty_set, read_remote, summary, unreachable

if TYPE_CHECKING:
    from datasets import Dataset

PREPARE_UCF101 = (
    "download UCF101.rar and UCF101TrainTestSplits-RecognitionTask.zip from "
    "https://www.crcv.ucf.edu/data/UCF101.php, run `arlow data prepare ucf101 --archive UCF101.rar "
    "--splits UCF101TrainTestSplits-RecognitionTask.zip --out DIR`, then set data.videos.path=DIR"
)


class TableSource:
    """A column of undecoded images or videos, memory-mapped."""

    def __init__(self, name: str, table: Dataset, column: str) -> None:
        self.name = name
        self._table = table
        self._column = column

    def __len__(self) -> int:
        return len(self._table)

    def read(self, position: int) -> RawSample:
        """Returns one undecoded sample. Raises BrokenSample, or what `with_retries` does."""
        cell = self._table[position][self._column] or {}
        content, path = cell.get("bytes"), cell.get("path")
        name = f"{self.name} row {position}" + (f" ({path})" if path else "")
        if content is not None:
            return RawSample(name, content)
        if not path:
            raise BrokenSample(name, "the row is empty")
        if "://" in path:
            return RawSample(name, read_remote(name, *fsspec.url_to_fs(path)))
        return RawSample(name, path)


def check_hub(section: SourceSection, modality: Modality) -> None:
    """Asks the hub for a data set without downloading its samples.

    Raises what `open_hub` would for its name, configuration or split.
    """
    from datasets import load_dataset_builder

    _log_once()
    try:
        builder = load_dataset_builder(section.path, section.name)
        splits = [str(s) for s in builder.info.splits or builder.config.data_files or ()]
        # Slices and sums of splits are left to `open_hub`.
        if splits and section.split.isidentifier() and section.split not in splits:
            raise ValueError(f"Unknown split {section.split!r}; there are: {', '.join(splits)}")
    except Exception as error:
        raise _explain(section, modality, error) from error


def open_hub(section: SourceSection, modality: Modality) -> TableSource:
    """Opens a data set of the hub by name, configuration, split and column.

    Raises DataError, CredentialsError, StoreError.
    """
    from datasets import load_dataset

    def load() -> Dataset:
        return load_dataset(section.path, section.name, split=section.split)

    return _open(section, load, modality)


def open_saved(section: SourceSection, path: str, modality: Modality) -> TableSource:
    """Opens what `save_to_disk` wrote to a local folder.

    Raises DataError, CredentialsError, StoreError.
    """
    from datasets import DatasetDict, load_from_disk

    def load() -> Dataset:
        saved = load_from_disk(path)
        if not isinstance(saved, DatasetDict):
            return saved
        if section.split not in saved:
            raise ValueError(f"Unknown split {section.split!r}; there are: {', '.join(saved)}")
        return saved[section.split]

    return _open(section, load, modality)


def open_tables(
    section: SourceSection, kind: str, files: Sequence[str], modality: Modality
) -> TableSource:
    """Opens parquet or arrow files, local or remote, through the data sets' cache.

    Raises DataError, CredentialsError, StoreError.
    """
    from datasets import load_dataset

    def load() -> Dataset:
        return load_dataset(kind, data_files={"train": list(files)}, split="train")

    return _open(section, load, modality)


def _open(section: SourceSection, load: Callable[[], Dataset], modality: Modality) -> TableSource:
    from datasets import Image, Video

    _log_once()
    try:
        table = load()
    except Exception as error:
        raise _explain(section, modality, error) from error
    column = _column(section, table.features, modality)
    undecoded = Image(decode=False) if modality == "image" else Video(decode=False)
    try:
        table = table.select_columns([column]).cast_column(column, undecoded)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise DataError(
            f"{section.path}: column {column!r} holds {table.features[column]}, not {modality}s; "
            f"name another in data.{modality}s.column (columns: {', '.join(table.column_names)})"
        ) from error
    return TableSource(section.path, table, column)


def _log_once() -> None:
    """Leaves what Hugging Face's libraries warn of to the root's log; they would say it twice."""
    for library in ("datasets", "huggingface_hub"):
        logging.getLogger(library).handlers.clear()


def _column(section: SourceSection, features: dict[str, Any], modality: Modality) -> str:
    columns = ", ".join(features)
    if section.column is not None:
        if section.column not in features:
            raise DataError(
                f"{section.path} has no column {section.column!r}; there are: {columns}"
            )
        return section.column
    if modality in features:
        return modality
    of_type = [c for c, f in features.items() if type(f).__name__.lower() == modality]
    if len(of_type) != 1:
        found = f"{len(of_type)} columns of {modality}s" if of_type else f"no column of {modality}s"
        raise DataError(
            f"{section.path} has {found}; name one in data.{modality}s.column (columns: {columns})"
        )
    return of_type[0]


def _explain(section: SourceSection, modality: Modality, error: Exception) -> ArlowError:
    """Returns what to tell the user when `datasets` could not load a set."""
    from datasets import config
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    path, field, text = section.path, f"data.{modality}s", str(error)
    of_ucf101 = f"; {PREPARE_UCF101}" if path.split("/")[-1] == "ucf101" else ""
    if isinstance(error, DatasetNotFoundError):
        if "gated" in text:
            return CredentialsError(
                f"{path} is gated: accept its terms at https://huggingface.co/datasets/{path} "
                "with your account, then run `hf auth login` or set HF_TOKEN (in a cluster: the "
                "secret that the pods get it from)"
            )
        return DataError(
            f"{path}: no such data set on the Hugging Face hub, or it is private; check "
            f"{field}.path (a folder starts with /, ./, ../ or ~), or, if it is private, run "
            f"`hf auth login` or set HF_TOKEN{of_ucf101}"
        )
    if isinstance(error, RuntimeError) and "scripts are no longer supported" in text:
        remedy = of_ucf101 or (
            f"; name a set in {field}.path that holds parquet or media files, or a folder of them"
        )
        return DataError(f"{path} is a script, which `datasets` no longer runs{remedy}")
    # How `datasets` fails on a table without rows, in its cache and saved to disk.
    if "corresponds to no data" in text or isinstance(error, IndexError):
        return empty_set(path, modality)
    if "split" in text and isinstance(error, ValueError):
        return DataError(f"{path}: {summary(error)}; set {field}.split")
    if "onfig" in text and isinstance(error, ValueError):
        return DataError(f"{path}: {' '.join(text.split())}; set {field}.name")
    if isinstance(error, ConnectionError):
        if config.HF_HUB_OFFLINE:
            return DataError(
                f"{path} is not in the local cache, and HF_HUB_OFFLINE keeps `datasets` from "
                f"fetching anything: unset it, or point {field}.path at a local folder{of_ucf101}"
            )
        return StoreError(
            f"{path}: the Hugging Face hub cannot be reached and the set is not in the local "
            f"cache ({summary(error)}); check the network or a proxy, or point {field}.path at a "
            f"folder{of_ucf101}"
        )
    if isinstance(error, (DatasetsError, ValueError)):
        return DataError(f"{path}: cannot be read: {summary(error)}")
    return unreachable(path, error)
