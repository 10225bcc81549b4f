"""Labelled sets from folders and tables, and what is wrong with some."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value

from arlow_trainer.config import ProbeSection, SourceSection
from arlow_trainer.config.errors import ArlowError, DataError
from arlow_trainer.probe.labelled import open_labelled
from support.class_folders import CLASSES, stripes, write_folders


def section(path: object, **fields: Any) -> ProbeSection:
    data = {"path": str(path)} | fields.pop("data", {})
    return ProbeSection(data=SourceSection(**data), **({"limit": 0} | fields))


def table(count: int, start: int, features: Features, **labels: Any) -> Dataset:
    columns = {"photo": [stripes(CLASSES[i % 2], start + i) for i in range(count)]}
    columns |= {name: [label(i) for i in range(count)] for name, label in labels.items()}
    return Dataset.from_dict(columns, features=Features({"photo": Image(), **features}))


def tables(features: Features, **labels: Any) -> DatasetDict:
    return DatasetDict(
        train=table(10, 0, features, **labels), test=table(6, 100, features, **labels)
    )


def test_class_folders(folder: Path) -> None:
    found = open_labelled(section(folder))
    assert found.classes == 2
    assert (len(found.train), len(found.test)) == (12, 8)
    for split in (found.train, found.test):
        assert Counter(split.classes) == {0: len(split) // 2, 1: len(split) // 2}
        for sample, position in enumerate(split.positions):
            path = split.source.read(position).content
            assert isinstance(path, str)
            assert Path(path).parent.name == CLASSES[split.classes[sample]]


@pytest.mark.parametrize("kind", ["parquet", "saved"])
def test_tables_with_class_labels(tmp_path: Path, kind: str) -> None:
    made = tables(Features(kind=ClassLabel(names=list(CLASSES))), kind=lambda i: i % 2)
    if kind == "saved":
        made.save_to_disk(str(tmp_path / "set"))
    else:
        for split, each in made.items():
            each.to_parquet(tmp_path / "set" / f"{split}.parquet")
    found = open_labelled(section(tmp_path / "set"))
    assert found.train.classes == [0, 1] * 5
    assert found.test.classes == [0, 1] * 3


def test_words_and_numbers_are_labels(tmp_path: Path) -> None:
    features = Features(word=Value("string"), number=Value("uint8"), flag=Value("bool"))
    labels = {"word": lambda i: "abc"[i % 3], "number": lambda i: 7 * (i % 2), "flag": bool}
    tables(features, **labels).save_to_disk(str(tmp_path / "set"))
    for column, classes in (("word", 3), ("number", 2), ("flag", 2)):
        found = open_labelled(section(tmp_path / "set", label=column))
        assert found.classes == classes
    assert found.train.classes == [0] + [1] * 9


def test_a_limit_draws_the_same_samples_from_everywhere(tmp_path: Path) -> None:
    folder = write_folders(tmp_path / "set", train=60)
    found = open_labelled(section(folder, limit=20))
    assert (len(found.train), len(found.test)) == (20, 8)
    assert set(found.train.classes) == {0, 1}
    assert list(found.train.positions) == sorted(set(found.train.positions))
    again = open_labelled(section(folder, limit=20))
    assert again.train.positions == found.train.positions


def test_samples_without_a_label_are_left_out(tmp_path: Path) -> None:
    labels = {"label": lambda i: (0, 1, -1, None)[i % 4]}
    tables(Features(label=Value("int64")), **labels).save_to_disk(str(tmp_path / "set"))
    found = open_labelled(section(tmp_path / "set"))
    assert list(found.train.positions) == [0, 1, 4, 5, 8, 9]


def refused(section: ProbeSection) -> str:
    with pytest.raises(ArlowError) as caught:
        open_labelled(section)
    assert isinstance(caught.value, DataError)
    return str(caught.value)


def test_no_test_split(folder: Path) -> None:
    (folder / "test").rename(folder / "val")
    assert "has no split 'test'" in refused(section(folder))
    assert "name one with --test-split" in refused(section(folder))
    assert len(open_labelled(section(folder, test_split="validation")).test) == 8


def test_no_splits_at_all(tmp_path: Path) -> None:
    folder = write_folders(tmp_path / "set") / "train"
    assert "has no split 'test'" in refused(section(folder))
    table(4, 0, Features(label=Value("int64")), label=lambda i: i).save_to_disk(
        str(tmp_path / "saved")
    )
    assert "has no split 'train'" in refused(section(tmp_path / "saved"))
    assert "both 'train'" in refused(section(folder, test_split="train"))


def test_a_missing_label_column(tmp_path: Path, folder: Path) -> None:
    message = refused(section(folder, label="kind"))
    assert "has no column 'kind'; name one with --label (columns: image, label)" in message
    tables(Features(size=Value("int64")), size=lambda i: i).save_to_disk(str(tmp_path / "saved"))
    message = refused(section(tmp_path / "saved"))
    assert "has no column of labels; name one with --label (columns: photo, size)" in message


def test_columns_that_hold_something_else(tmp_path: Path, folder: Path) -> None:
    features = Features(label=Value("float32"), word=Value("string"))
    labels = {"label": lambda i: i / 2, "word": lambda i: "ab"[i % 2]}
    tables(features, **labels).save_to_disk(str(tmp_path / "saved"))
    message = refused(section(tmp_path / "saved"))
    assert "column 'label' holds float32; labels are whole numbers or words" in message
    wrong = section(tmp_path / "saved", label="word", data={"column": "label"})
    assert (
        "column 'label' holds Value('float32'), not images; name another with --column"
        in refused(wrong)
    )
    absent = section(folder, data={"column": "img"})
    assert "has no column 'img'; name one with --column" in refused(absent)


def test_one_class_only(tmp_path: Path) -> None:
    labels = {"label": lambda i: 3}
    tables(Features(label=Value("int64")), **labels).save_to_disk(str(tmp_path / "set"))
    message = refused(section(tmp_path / "set"))
    assert "all training samples are of one class, 3, so there is nothing to distinguish" in message


def test_classes_that_do_not_meet(tmp_path: Path) -> None:
    features = Features(label=Value("string"))
    DatasetDict(
        train=table(4, 0, features, label=lambda i: "ab"[i % 2]),
        test=table(4, 9, features, label=lambda i: "cd"[i % 2]),
    ).save_to_disk(str(tmp_path / "set"))
    assert "have no class in common" in refused(section(tmp_path / "set"))


def test_hidden_labels(tmp_path: Path) -> None:
    features = Features(label=ClassLabel(names=["a", "b"]))
    DatasetDict(
        train=table(4, 0, features, label=lambda i: i % 2),
        test=table(4, 9, features, label=lambda i: -1),
    ).save_to_disk(str(tmp_path / "set"))
    message = refused(section(tmp_path / "set"))
    assert "split 'test': column 'label' holds no labels, as in test sets whose labels" in message


def test_paths_without_a_set(tmp_path: Path) -> None:
    assert "no such folder" in refused(section(tmp_path / "nowhere"))
    assert "copy the folder here" in refused(section("s3://bucket/set"))
    (tmp_path / "empty").mkdir()
    assert "cannot be read" in refused(section(tmp_path / "empty"))
    # Tests keep off the network.
    assert "hub cannot be reached" in refused(section("somebody/some-set"))


def test_a_split_without_the_image_column_of_the_other(tmp_path: Path) -> None:
    features = Features(label=Value("int64"))
    test = table(6, 100, features, label=lambda i: i % 2).rename_column("photo", "picture")
    sets = DatasetDict(train=table(10, 0, features, label=lambda i: i % 2), test=test)
    sets.save_to_disk(str(tmp_path / "saved"))
    message = refused(section(tmp_path / "saved"))
    assert "has no column 'photo'; name another with --column (columns: picture, label)" in message
