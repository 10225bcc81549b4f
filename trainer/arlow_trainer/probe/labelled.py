"""Labelled sets of pictures: by name from the hub, or a local folder, through `datasets`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from arlow_trainer.config import ProbeSection
from arlow_trainer.config.errors import ArlowError, CredentialsError, DataError
from arlow_trainer.data.folder import is_folder
from arlow_trainer.data.remote import summary, unreachable
from arlow_trainer.data.table import TableSource

if TYPE_CHECKING:
    from datasets import Dataset, Features

_NO_LABEL = -1
_LABEL_TYPE = re.compile(r"u?int\d+|(large_)?string|bool")
_DRAW_SEED = 0


@dataclass(frozen=True)
class LabelledSplit:
    """Samples of a split: rows of its table, ascending, and the class of each."""

    name: str
    source: TableSource
    positions: Sequence[int]
    classes: Sequence[int]

    def __len__(self) -> int:
        return len(self.positions)


@dataclass(frozen=True)
class LabelledSet:
    """Training and test samples; their classes are numbered from 0."""

    train: LabelledSplit
    test: LabelledSplit
    classes: int


def open_labelled(section: ProbeSection) -> LabelledSet:
    """Opens a labelled set, and draws at most `section.limit` samples of each split.

    Samples without a label (none, or -1 as hidden test labels are written) are left out.

    Raises DataError, CredentialsError, saying what is wrong and what to do.
    """
    data = section.data
    names = {"train": data.split, "test": section.test_split}
    if data.split == section.test_split:
        raise DataError(
            f"{data.path}: training and test split are both {data.split!r}, so that every answer "
            "would be known; name different ones with --train-split and --test-split"
        )
    tables = {part: _load(section, split, part) for part, split in names.items()}
    image = _image_column(section, tables["train"].features)
    labels = {}
    for part, table in tables.items():
        column = _label_column(section, table.features)
        labels[part] = _labels(f"{data.path}, split {names[part]!r}", table, column)
    drawn = {part: _draw(values, section.limit) for part, values in labels.items()}
    found = {part: {labels[part][row] for row in rows} for part, rows in drawn.items()}
    _check_classes(data.path, found["train"], found["test"])
    classes = sorted(found["train"] | found["test"], key=lambda label: (str(type(label)), label))
    number = {label: index for index, label in enumerate(classes)}

    def split(part: str) -> LabelledSplit:
        name = f"{data.path}, split {names[part]!r}"
        source = TableSource(name, _undecoded(name, tables[part], image), image)
        numbers = [number[labels[part][row]] for row in drawn[part]]
        return LabelledSplit(name, source, drawn[part], numbers)

    return LabelledSet(split("train"), split("test"), len(classes))


def _load(section: ProbeSection, split: str, part: str) -> Dataset:
    from datasets import Dataset, load_dataset, load_from_disk

    path = section.data.path
    if is_folder(path):
        if "://" in path:
            raise DataError(
                f"{path}: labelled sets are read from a local folder or by name from the Hugging "
                "Face hub; copy the folder here, or mount it, and give its path"
            )
        path = os.path.expanduser(path)
        if not os.path.isdir(path):
            raise DataError(
                f"{path}: no such folder; give a folder that exists, or a Hugging Face data set's "
                "name without a leading / or ./"
            )
    try:
        if os.path.isfile(os.path.join(path, "dataset_dict.json")):
            saved = load_from_disk(path)
            if split not in saved:
                raise ValueError(f"Unknown split {split!r}; there are: {', '.join(saved)}")
            table = saved[split]
        elif os.path.isfile(os.path.join(path, "state.json")):
            raise ValueError(f"Unknown split {split!r}; it was saved without splits")
        else:
            table = load_dataset(path, section.data.name, split=split)
    except Exception as error:
        raise _explain(section, split, part, error) from error
    assert isinstance(table, Dataset)
    if not len(table):
        raise DataError(f"{path}: split {split!r} is empty; name another with --{part}-split")
    return table


def _image_column(section: ProbeSection, features: Features) -> str:
    path, column = section.data.path, section.data.column
    if column is not None:
        if column not in features:
            raise _no_column(path, "column", column, features)
        return column
    if "image" in features:
        return "image"
    found = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    if len(found) != 1:
        raise DataError(
            f"{path} has {len(found) or 'no'} column{'s' * (len(found) != 1)} of pictures; name "
            f"one with --column (columns: {', '.join(features)})"
        )
    return str(found[0])


def _label_column(section: ProbeSection, features: Features) -> str:
    path, column = section.data.path, section.label
    if column is not None:
        if column not in features:
            raise _no_column(path, "label", column, features)
        return column
    if "label" in features:
        return "label"
    found = [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    if len(found) != 1:
        raise DataError(
            f"{path} has {'no column' if not found else 'several columns'} of labels; name one "
            f"with --label (columns: {', '.join(features)}). A folder of pictures has labels where "
            "they lie in one folder a class: train/<class>/, test/<class>/"
        )
    return str(found[0])


def _no_column(path: str, option: str, column: str, features: Features) -> DataError:
    return DataError(
        f"{path} has no column {column!r}; name one with --{option} "
        f"(columns: {', '.join(features)})"
    )


def _labels(name: str, table: Dataset, column: str) -> list[str | int | None]:
    """Returns the labels of all rows; None where there is none. Raises DataError."""
    from datasets import ClassLabel, Value

    feature = table.features[column]
    words = isinstance(feature, ClassLabel)
    if not words and not (isinstance(feature, Value) and _LABEL_TYPE.fullmatch(feature.dtype)):
        raise DataError(
            f"{name}: column {column!r} holds {_kind(feature)}; labels are whole numbers or words, "
            f"one a picture: name another column with --label (columns: "
            f"{', '.join(table.column_names)})"
        )
    values = table.select_columns([column])[:][column]
    # By name, because splits may count their classes differently.
    names = feature.names if words else None
    found = [
        None if value is None or value == _NO_LABEL else names[value] if names else value
        for value in values
    ]
    if all(label is None for label in found):
        raise DataError(
            f"{name}: column {column!r} holds no labels, as in test sets whose labels are hidden; "
            "name a split that has them with --train-split and --test-split"
        )
    return found


def _kind(feature: Any) -> str:
    return getattr(feature, "dtype", None) or type(feature).__name__


def _draw(labels: Sequence[str | int | None], limit: int | None) -> list[int]:
    """Returns the rows of at most `limit` labelled samples, drawn alike every time, ascending."""
    rows = np.array([row for row, label in enumerate(labels) if label is not None])
    if limit is not None and len(rows) > limit:
        rows = np.random.default_rng(_DRAW_SEED).choice(rows, limit, replace=False)
    return sorted(rows.tolist())


def _check_classes(path: str, train: set[Any], test: set[Any]) -> None:
    if len(train) < 2:
        raise DataError(
            f"{path}: all training samples are of one class, {next(iter(train))!r}, so there is "
            "nothing to tell apart; name another column with --label, or raise --limit"
        )
    if not train & test:
        raise DataError(
            f"{path}: training and test split have no class in common (such as "
            f"{next(iter(train))!r} and {next(iter(test))!r}); name splits of one set with "
            "--train-split and --test-split, or raise --limit"
        )


def _undecoded(name: str, table: Dataset, column: str) -> Dataset:
    from datasets import Image

    try:
        return table.select_columns([column]).cast_column(column, Image(decode=False))
    except (KeyError, TypeError, ValueError, NotImplementedError):
        raise DataError(
            f"{name}: column {column!r} holds no pictures; name another with --column (columns: "
            f"{', '.join(table.column_names)})"
        ) from None


def _explain(section: ProbeSection, split: str, part: str, error: Exception) -> ArlowError:
    """Returns what to tell the user when `datasets` could not load a set."""
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    path, text = section.data.path, str(error)
    if isinstance(error, DatasetNotFoundError):
        if "gated" in text:
            return CredentialsError(
                f"{path} is gated: accept its terms at https://huggingface.co/datasets/{path} "
                "with your account, then run `hf auth login` or set HF_TOKEN"
            )
        return DataError(
            f"{path}: no such data set on the Hugging Face hub, or it is private; check --data (a "
            "folder starts with /, ./, ../ or ~), or, if it is private, run `hf auth login`"
        )
    if isinstance(error, ValueError) and "split" in text:
        return DataError(
            f"{path} has no split {split!r} ({summary(error)}); name one with --{part}-split. A "
            "folder has splits where its folders or files are called so: train/, test/"
        )
    if isinstance(error, ValueError) and "onfig" in text:
        return DataError(f"{path}: {' '.join(text.split())}; set --name")
    if isinstance(error, ConnectionError):
        return DataError(
            f"{path}: the Hugging Face hub cannot be reached and the set is not in the local cache "
            f"({summary(error)}); check the network, or give a local folder"
        )
    if isinstance(error, (DatasetsError, ValueError, FileNotFoundError)):
        return DataError(f"{path}: cannot be read: {summary(error)}")
    return unreachable(path, error)
