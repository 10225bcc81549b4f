"""Labelled sets of images: by name from the hub, or a local folder, through `datasets`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from arlow_trainer.config import ProbeSection
from arlow_trainer.config.errors import DataError
from arlow_trainer.data.folder import is_folder
from arlow_trainer.data.table import (
    SettingNames,
    TableSource,
    load_named,
    load_saved,
    media_column,
    media_source,
)

if TYPE_CHECKING:
    from datasets import Dataset, Features

_NO_LABEL = -1
_LABEL_TYPE = re.compile(r"u?int\d+|(large_)?string|bool")
_DRAW_SEED = 0

Part = Literal["train", "test"]


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
    """Opens a labelled set, and draws at most `section.limit` samples of each split (0: all).

    Samples without a label (none, or -1 as hidden test labels are written) are left out.

    Raises DataError, CredentialsError, StoreError, saying what is wrong and what to do.
    """
    data = section.data
    splits: dict[Part, str] = {"train": data.split, "test": section.test_split}
    if data.split == section.test_split:
        raise DataError(
            f"{data.path}: training and test split are both {data.split!r}, so that every answer "
            "would be known; name different ones with --train-split and --test-split"
        )
    names = {part: f"{data.path}, split {split!r}" for part, split in splits.items()}
    tables = {part: _load(section, part, split) for part, split in splits.items()}
    features = tables["train"].features
    image = media_column(data, features, "image", _settings("train"))
    labels = {
        part: _labels(names[part], table, _label_column(section, table.features))
        for part, table in tables.items()
    }
    drawn = {part: _draw(values, section.limit) for part, values in labels.items()}
    found = {part: {labels[part][row] for row in rows} for part, rows in drawn.items()}
    _check_classes(data.path, found["train"], found["test"])
    classes = sorted(found["train"] | found["test"], key=lambda label: (str(type(label)), label))
    number = {label: index for index, label in enumerate(classes)}

    def split_of(part: Part) -> LabelledSplit:
        source = media_source(names[part], tables[part], image, "image", _settings(part))
        numbers = [number[labels[part][row]] for row in drawn[part]]
        return LabelledSplit(names[part], source, drawn[part], numbers)

    return LabelledSet(split_of("train"), split_of("test"), len(classes))


def _settings(part: Part) -> SettingNames:
    return SettingNames(path="--data", name="--name", split=f"--{part}-split", column="--column")


def _load(section: ProbeSection, part: Part, split: str) -> Dataset:
    data = section.data.model_copy(update={"split": split})
    settings = _settings(part)
    if is_folder(data.path):
        data = data.model_copy(update={"path": _local_folder(data.path)})
    if os.path.isfile(os.path.join(data.path, "dataset_dict.json")):
        table = load_saved(data, data.path, settings)
    elif os.path.isfile(os.path.join(data.path, "state.json")):
        raise DataError(
            f"{data.path} has no split {split!r}: it was saved without splits; save a "
            "`DatasetDict` of a training and a test split"
        )
    else:
        table = load_named(data, settings)
    if not len(table):
        raise DataError(
            f"{data.path}: split {split!r} is empty; name another with {settings.split}"
        )
    return table


def _local_folder(path: str) -> str:
    if "://" in path:
        raise DataError(
            f"{path}: labelled sets are read from a local folder or by name from the Hugging "
            "Face hub; copy the folder here, or mount it, and give its path"
        )
    folder = os.path.expanduser(path)
    if not os.path.isdir(folder):
        raise DataError(
            f"{folder}: no such folder; give a folder that exists, or a Hugging Face data set's "
            "name without a leading / or ./"
        )
    return folder


def _label_column(section: ProbeSection, features: Features) -> str:
    path, column = section.data.path, section.label
    if column is not None:
        if column not in features:
            raise DataError(
                f"{path} has no column {column!r}; name one with --label "
                f"(columns: {', '.join(features)})"
            )
        return column
    if "label" in features:
        return "label"
    found = [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    if len(found) != 1:
        raise DataError(
            f"{path} has {'no column' if not found else 'several columns'} of labels; name one "
            f"with --label (columns: {', '.join(features)}). A folder of images has labels where "
            "each class has a subfolder: train/<class>/, test/<class>/"
        )
    return str(found[0])


def _labels(name: str, table: Dataset, column: str) -> list[str | int | None]:
    """Returns the labels of all rows; None where there is none. Raises DataError."""
    from datasets import ClassLabel, Value

    feature = table.features[column]
    has_names = isinstance(feature, ClassLabel)
    if not has_names and not (isinstance(feature, Value) and _LABEL_TYPE.fullmatch(feature.dtype)):
        raise DataError(
            f"{name}: column {column!r} holds {_kind(feature)}; labels are whole numbers or words, "
            f"one for each image: name another column with --label (columns: "
            f"{', '.join(table.column_names)})"
        )
    values = table.select_columns([column])[:][column]
    # By name, because splits may count their classes differently.
    names = feature.names if has_names else None
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


def _draw(labels: Sequence[str | int | None], limit: int) -> list[int]:
    """Returns the rows of at most `limit` labelled samples (0: all), alike every time, sorted."""
    rows = np.array([row for row, label in enumerate(labels) if label is not None])
    if 0 < limit < len(rows):
        rows = np.random.default_rng(_DRAW_SEED).choice(rows, limit, replace=False)
    return sorted(rows.tolist())


def _check_classes(path: str, train: set[Any], test: set[Any]) -> None:
    if len(train) < 2:
        raise DataError(
            f"{path}: all training samples are of one class, {next(iter(train))!r}, so there is "
            "nothing to distinguish; name another column with --label, or raise --limit"
        )
    if not train & test:
        raise DataError(
            f"{path}: training and test split have no class in common (such as "
            f"{next(iter(train))!r} and {next(iter(test))!r}); name splits of one set with "
            "--train-split and --test-split, or raise --limit"
        )
