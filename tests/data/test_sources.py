"""Opening sets: tables, folders of media files, and mistakes in either."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import datasets
import fsspec
import numpy as np
import pytest
from PIL import Image

from arlow_trainer.config import DataSection, SourceSection
from arlow_trainer.config.errors import DataError, StoreError
from arlow_trainer.data import BrokenSample, decode_clip, decode_image, open_source, open_sources
from arlow_trainer.data.folder import is_folder
from arlow_trainer.data.table import _load as load_table
from arlow_trainer.data.table import check_hub, training_settings


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def table(photographs: list[Path]) -> datasets.Dataset:
    rows = {
        "image": [{"bytes": path.read_bytes(), "path": path.name} for path in photographs],
        "label": list(range(len(photographs))),
    }
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    return datasets.Dataset.from_dict(rows, features=features)


@pytest.fixture
def memory() -> fsspec.AbstractFileSystem:
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]
    return filesystem


def section(path: object, **settings: str) -> SourceSection:
    return SourceSection(path=str(path), **settings)


def assert_holds(path: object, photographs: list[Path], **settings: str) -> None:
    """The set holds these photographs, in this order, here and in a process it is sent to."""
    source = open_source(section(path, **settings), "image")
    assert len(source) == len(photographs)
    for other in (source, pickle.loads(pickle.dumps(source))):
        for position in (0, len(photographs) - 1):
            held = np.asarray(decode_image(other.read(position)))
            with Image.open(photographs[position]) as image:
                assert np.array_equal(held, np.asarray(image))


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("ILSVRC/imagenet-1k", False),
        ("ucf101", False),
        ("/data/images", True),
        ("./images", True),
        ("../images", True),
        ("~/images", True),
        ("s3://bucket/images", True),
        ("file:///images", True),
    ],
)
def test_a_folder_is_distinguished_from_a_name(path: str, folder: bool) -> None:
    assert is_folder(path) is folder


# Tables


def test_saved_to_disk(table: datasets.Dataset, photographs: list[Path], tmp_path: Path) -> None:
    table.save_to_disk(tmp_path / "saved", num_shards=2)
    assert_holds(tmp_path / "saved", photographs)


def test_splits_saved_to_disk(
    table: datasets.Dataset, photographs: list[Path], tmp_path: Path
) -> None:
    splits = datasets.DatasetDict(train=table, test=table.select(range(2)))
    splits.save_to_disk(tmp_path / "saved")
    assert_holds(tmp_path / "saved", photographs[:2], split="test")
    with pytest.raises(
        DataError, match=r"has no split 'val' \(Unknown split 'val'; there are: train, test\)"
    ):
        open_source(section(tmp_path / "saved", split="val"), "image")


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_table_files(
    table: datasets.Dataset, photographs: list[Path], tmp_path: Path, kind: str
) -> None:
    for split, part in (("train", table), ("test", table.select(range(2)))):
        for shard in range(2):
            rows = part.shard(2, shard)
            path = tmp_path / "set" / f"{split}-{shard:05d}-of-00002.{kind}"
            path.parent.mkdir(exist_ok=True)
            if kind == "parquet":
                rows.to_parquet(path)
            else:
                with datasets.arrow_writer.ArrowWriter(features=rows.features, path=path) as out:
                    out.write_table(rows.data.table.combine_chunks())
    assert_holds(tmp_path / "set", photographs)
    assert_holds(tmp_path / "set", photographs[:2], split="test")
    with pytest.raises(DataError, match=r"no split 'val'; there are: test, train"):
        open_source(section(tmp_path / "set", split="val"), "image")


def test_parquet_whose_names_contain_no_split(
    table: datasets.Dataset, photographs: list[Path], tmp_path: Path
) -> None:
    table.to_parquet(tmp_path / "images.parquet")
    assert_holds(tmp_path, photographs)
    assert_holds(f"file://{tmp_path}", photographs)


def test_remote_tables(
    table: datasets.Dataset,
    photographs: list[Path],
    tmp_path: Path,
    memory: fsspec.AbstractFileSystem,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    table.to_parquet(tmp_path / "parquet" / "train.parquet")
    table.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict(train=table.select([0]), test=table).save_to_disk(tmp_path / "splits")
    for name in ("parquet", "saved", "splits"):
        memory.put(str(tmp_path / name), f"/{name}", recursive=True)
    assert_holds("memory://parquet", photographs)
    assert_holds("memory://saved", photographs)
    assert_holds("memory://splits", photographs, split="test")


def test_columns(table: datasets.Dataset, photographs: list[Path], tmp_path: Path) -> None:
    renamed = table.rename_column("image", "jpg")
    renamed.save_to_disk(tmp_path / "one")
    assert_holds(tmp_path / "one", photographs)
    assert_holds(tmp_path / "one", photographs, column="jpg")
    again = renamed.rename_column("jpg", "png").remove_columns("label")
    datasets.concatenate_datasets([renamed, again], axis=1).save_to_disk(tmp_path / "two")
    assert_holds(tmp_path / "two", photographs, column="png")
    with pytest.raises(
        DataError, match=r"2 columns of images; name one with data.images.column \(columns: "
    ):
        open_source(section(tmp_path / "two"), "image")
    with pytest.raises(
        DataError,
        match=r"no column 'webp'; name one with data.images.column \(columns: jpg, label\)",
    ):
        open_source(section(tmp_path / "one", column="webp"), "image")
    with pytest.raises(DataError, match=r"column 'label' holds .*int64.*, not images"):
        open_source(section(tmp_path / "one", column="label"), "image")
    with pytest.raises(DataError, match="no column of videos"):
        open_source(section(tmp_path / "one"), "video")


def test_a_column_of_videos(videos: list[Path], tmp_path: Path) -> None:
    rows = {"video": [{"bytes": video.read_bytes(), "path": None} for video in videos[:2]]}
    features = datasets.Features({"video": datasets.Video(decode=False)})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path)
    source = open_source(section(tmp_path), "video")
    assert len(decode_clip(source.read(1), 4, 4, seed=0)) == 4


def test_an_empty_row_is_broken(photographs: list[Path], tmp_path: Path) -> None:
    rows = {"image": [{"bytes": photographs[3].read_bytes(), "path": None}, None]}
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path)
    with pytest.raises(BrokenSample, match="row 1: the row is empty"):
        open_source(section(tmp_path), "image").read(1)


def test_an_empty_table(table: datasets.Dataset, tmp_path: Path) -> None:
    table.select([]).save_to_disk(tmp_path / "saved")
    table.select([]).to_parquet(tmp_path / "parquet" / "train.parquet")
    for name in ("saved", "parquet"):
        with pytest.raises(
            DataError,
            match=rf"{name} is empty; name another set with data.images.path or data.images.split",
        ):
            open_source(section(tmp_path / name), "image")


def test_a_damaged_table(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 not a table PAR1")
    with pytest.raises(DataError, match=r"cannot be read: .*[Pp]arquet"):
        open_source(section(tmp_path), "image")


# What a run draws from


def test_a_run_opens_what_it_draws_from(image_folder: Path, video_folder: Path) -> None:
    images, videos = section(image_folder), section(video_folder)
    unread = section("/nowhere")
    assert list(open_sources(DataSection(images=images, videos=videos))) == ["image", "video"]
    alone = DataSection(images=images, videos=unread, video_probability=0)
    assert list(open_sources(alone)) == ["image"]
    alone = DataSection(images=unread, videos=videos, video_probability=1)
    assert list(open_sources(alone)) == ["video"]


@pytest.mark.parametrize(
    ("videos", "message"),
    [("ucf101", "arlow data prepare ucf101"), ("/nowhere", "/nowhere: no such folder")],
)
def test_wrong_videos_are_reported_before_the_images_are_prepared(
    table: datasets.Dataset, tmp_path: Path, videos: str, message: str
) -> None:
    table.to_parquet(tmp_path / "images" / "train.parquet")
    images = section(tmp_path / "images")
    with pytest.raises(DataError, match=message):
        open_sources(DataSection(images=images, videos=section(videos)))
    with pytest.raises(
        DataError, match=r"no split 'val' \(Unknown .*: train\); name one with data\.images\.split"
    ):
        check_hub(section(tmp_path / "images", split="val"), "image")
    check_hub(section(tmp_path / "images", split="train[:3]"), "image")
    assert not list(tmp_path.glob("cache/**/*.arrow"))
    open_source(images, "image")
    assert list(tmp_path.glob("cache/**/*.arrow"))


# Media files


def test_media_files_recursively_sorted(photographs: list[Path], tmp_path: Path) -> None:
    by_class = sorted(
        (f"{number % 2}/{path.name.upper()}", path) for number, path in enumerate(photographs)
    )
    for name, path in by_class:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / name)
    (tmp_path / "labels.csv").touch()
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.jpg").touch()
    assert_holds(tmp_path, [path for _, path in by_class])


def test_the_split_is_a_subfolder_where_there_is_one(
    photographs: list[Path], tmp_path: Path
) -> None:
    for split, path in (("train", photographs[0]), ("test", photographs[1])):
        (tmp_path / split).mkdir()
        shutil.copy(path, tmp_path / split)
    assert_holds(tmp_path, photographs[:1])
    assert_holds(tmp_path, photographs[1:2], split="test")
    with pytest.raises(DataError, match="no split 'val'; there are: test, train"):
        open_source(section(tmp_path, split="val"), "image")


def test_local_files_are_read_by_path_and_remote_ones_as_bytes(
    videos: list[Path], video_folder: Path, memory: fsspec.AbstractFileSystem
) -> None:
    local = open_source(section(video_folder), "video").read(0)
    assert local.content == local.name == str(video_folder / "bikes.mp4")
    memory.put(str(video_folder), "/videos", recursive=True)
    remote = open_source(section("memory://videos"), "video").read(0)
    assert remote.content == videos[0].read_bytes()
    assert remote.name == "memory://videos/bikes.mp4"


def test_a_file_that_vanishes_is_broken(
    video_folder: Path, memory: fsspec.AbstractFileSystem
) -> None:
    memory.put(str(video_folder), "/videos", recursive=True)
    source = open_source(section("memory://videos"), "video")
    memory.rm("/videos/bikes.mp4")
    with pytest.raises(BrokenSample, match=r"memory://videos/bikes\.mp4: the file is gone"):
        source.read(0)


@pytest.mark.parametrize("nested", [True, False])
def test_a_folder_without_media(tmp_path: Path, nested: bool) -> None:
    if nested:
        (tmp_path / "notes").mkdir()
        (tmp_path / "notes" / "read.me").touch()
    holds = r"holds 1 file \(\.me\)" if nested else "is empty"
    expected = rf"{holds}; expected images \(\.apng, .*\), parquet or arrow files$"
    with pytest.raises(DataError, match=expected):
        open_source(section(tmp_path), "image")


def test_what_is_no_folder(tmp_path: Path, memory: fsspec.AbstractFileSystem) -> None:
    (tmp_path / "video.mp4").touch()
    for path in (tmp_path / "gone", "memory://gone"):
        with pytest.raises(DataError, match="gone: no such folder"):
            open_source(section(path), "image")
    with pytest.raises(
        DataError, match=r"video.mp4 is a file, and neither a table .* give the folder"
    ):
        open_source(section(tmp_path / "video.mp4"), "video")
    with pytest.raises(DataError, match="Protocol not known: ftpx"):
        open_source(section("ftpx://host/images"), "image")


def test_a_set_of_broken_files_fails_at_opening(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"(?s)3 images, and none of the 3 tried.*2.jpg: not an im"):
        open_source(section(tmp_path), "image")


def test_one_broken_file_does_not_stop_a_set_from_opening(
    photographs: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "0.jpg").write_bytes(b"torn")
    shutil.copy(photographs[0], tmp_path)
    assert len(open_source(section(tmp_path), "image")) == 2


def test_the_hub_out_of_reach_is_reported() -> None:
    with pytest.raises(
        DataError, match=r"nobody/nothing is not in the local cache, and HF_HUB_OFFLINE is set"
    ):
        open_source(section("nobody/nothing"), "image")
    with pytest.raises(DataError, match="arlow data prepare ucf101 --archive"):
        open_source(section("ucf101"), "video")


def test_a_hub_that_does_not_answer_may_answer_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)

    def load() -> datasets.Dataset:
        raise ConnectionError("no route")

    with pytest.raises(StoreError, match=r"x/y: the Hugging Face hub cannot be reached.*no route"):
        load_table(section("x/y"), training_settings("image"), load)
