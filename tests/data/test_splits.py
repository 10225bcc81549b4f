"""Which files of a folder are a split of it, by their names."""

from __future__ import annotations

import pytest

from arlow_trainer.data.splits import NoSuchSplit, choose_split, split_in


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("Train", "train"),
        ("TRAINING", "train"),
        ("train2017", "train"),
        ("trainImages", "train"),
        ("training_set", "train"),
        ("cifar10-train", "train"),
        ("train-00000-of-00002", "train"),
        ("ILSVRC2012_img_val", "validation"),
        ("Validation", "validation"),
        ("val2017", "validation"),
        ("testing", "test"),
        ("test2017", "test"),
        ("held-out", "held-out"),
        ("held_out", "held-out"),
        ("holdout", "held-out"),
        ("dev", "dev"),
        ("devset", "dev"),
        ("trainset", "train"),
        ("testimages", "test"),
        ("trainA", "train"),
        ("trainval", "train"),
        ("eval", "test"),
        ("Evaluation", "test"),
        ("dataset", None),
        ("n01440764", None),
        ("trainer", None),
        ("contest", None),
        ("train-test", None),
        ("images", None),
        ("00000", None),
    ],
)
def test_what_a_name_means(name: str, split: str | None) -> None:
    assert split_in(name) == split


COCO = ["train2017/1.jpg", "val2017/2.jpg", "test2017/3.jpg"]
IMAGENET = [f"ILSVRC/Data/CLS-LOC/{path}" for path in ("test/1.jpg", "train/n0/2.jpg", "val/3.jpg")]
VEHICLES = ["bus/1.jpg", "train/2.jpg", "tram/3.jpg"]
FLAT = ["test_1.jpg", "train_1.jpg", "train_2.jpg"]
NESTED = ["cats/test/1.jpg", "cats/train/2.jpg", "dogs/test/3.jpg", "dogs/train/4.jpg"]


@pytest.mark.parametrize(
    ("files", "asked", "chosen"),
    [
        (COCO, "train", ["train2017/1.jpg"]),
        (COCO, "validation", ["val2017/2.jpg"]),
        (COCO, "val2017", ["val2017/2.jpg"]),
        (["Train/a.png", "Validation/b.png"], "train", ["Train/a.png"]),
        (["Train/a.png", "Validation/b.png"], "val", ["Validation/b.png"]),
        (["eval/a.png", "train/b.png"], "train", ["train/b.png"]),
        (["eval/a.png", "train/b.png"], "eval", ["eval/a.png"]),
        (["test/a.png", "trainval/b.png"], "train", ["trainval/b.png"]),
        (["train/a.png", "trainval/b.png"], "train", ["train/a.png"]),
        (IMAGENET, "train", [IMAGENET[1]]),
        (IMAGENET, "val", [IMAGENET[2]]),
        (["testing/a.mp4", "training/b.mp4"], "train", ["training/b.mp4"]),
        (["held-out/a.mp4", "train/b.mp4"], "held-out", ["held-out/a.mp4"]),
        (VEHICLES, "train", VEHICLES),
        (VEHICLES, "bus", ["bus/1.jpg"]),
        (NESTED, "train", [NESTED[1], NESTED[3]]),
        (["train/1.jpg"], "train", ["train/1.jpg"]),
        (["train/bus/1.jpg", "train/train/2.jpg"], "train", None),
        (["fold1/1.jpg", "fold2/2.jpg"], "fold2", ["fold2/2.jpg"]),
        (FLAT, "train", FLAT[1:]),
        (["train.jpg"], "train", ["train.jpg"]),
        (["test.jpg"], "train", ["test.jpg"]),  # one picture is no test set
        (["a/test.jpg", "a/train.jpg", "b/1.jpg"], "train", None),
        (["readme.jpg", "train/1.jpg", "test/2.jpg"], "train", ["train/1.jpg"]),
    ],
)
def test_media(files: list[str], asked: str, chosen: list[str] | None) -> None:
    has = choose_split(files, asked, tables=False).has
    assert list(filter(has, files)) == (files if chosen is None else chosen)


@pytest.mark.parametrize(
    ("files", "asked", "chosen"),
    [
        (["cifar10-test.parquet", "cifar10-train.parquet"], "train", ["cifar10-train.parquet"]),
        (["test-0-of-1.parquet", "train-0-of-1.parquet"], "test", ["test-0-of-1.parquet"]),
        (["default/test/0.parquet", "default/train/0.pq"], "train", ["default/train/0.pq"]),
        (["data/a.parquet", "data/b.parquet"], "train", ["data/a.parquet", "data/b.parquet"]),
    ],
)
def test_tables(files: list[str], asked: str, chosen: list[str]) -> None:
    assert list(filter(choose_split(files, asked, tables=True).has, files)) == chosen


@pytest.mark.parametrize(
    ("files", "asked", "tables", "there_are"),
    [
        (COCO, "dev", False, ["test", "train", "validation"]),
        (["test/1.jpg"], "train", False, ["test"]),
        (["test.parquet"], "train", True, ["test"]),
        (["1.jpg"], "test", False, []),
    ],
)
def test_a_split_that_is_not_there(
    files: list[str], asked: str, tables: bool, there_are: list[str]
) -> None:
    with pytest.raises(NoSuchSplit) as raised:
        choose_split(files, asked, tables=tables)
    assert raised.value.there_are == there_are


def test_it_is_said_whether_there_are_splits() -> None:
    assert choose_split(COCO, "train", tables=False).split == "train"
    assert choose_split(VEHICLES, "train", tables=False).split is None
