"""A folder means what its owner thinks: what is taken of it, what not, and that it is said."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import datasets
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, features

from arlow_trainer.config import SourceSection
from arlow_trainer.config.errors import DataError
from arlow_trainer.data import decode_clip, decode_image, open_source
from arlow_trainer.data.folder import Selection
from arlow_trainer.data.sources import select_source


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")


def picture(value: int = 0, format: str = "JPEG") -> bytes:
    stored = io.BytesIO()
    Image.fromarray(np.full((8, 12, 3), value, np.uint8)).save(stored, format)
    return stored.getvalue()


def write(folder: Path, *files: str, content: bytes | None = None) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(picture() if content is None else content)
    return folder


def selected(path: object, modality: str = "image", **settings: str) -> Selection:
    selection = select_source(SourceSection(path=str(path), **settings), modality)[1]
    assert selection is not None
    return selection


def names(path: object, modality: str = "image", **settings: str) -> list[str]:
    source = select_source(SourceSection(path=str(path), **settings), modality)[0]
    root = str(path).rstrip("/")
    return [source.read(at).name.removeprefix(f"{root}/") for at in range(len(source))]


# Splits


def test_what_was_chosen_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "train2017/1.jpg", "train2017/2.jpg", "val2017/3.jpg", "test2017/4.jpg")
    write(tmp_path, "annotations/a.json", "annotations/b.json", "README", content=b"{}")
    assert names(tmp_path) == ["train2017/1.jpg", "train2017/2.jpg"]
    with caplog.at_level(logging.INFO, "arlow"):
        open_source(SourceSection(path=str(tmp_path)), "image")
    assert (
        "using 2 of 4 files (split train); passing over 3: .json 2, no extension 1" in caplog.text
    )
    assert selected(tmp_path, split="val").used == 1


def test_tables_have_splits_by_the_same_rule(tmp_path: Path) -> None:
    for split, rows in (("train", 3), ("test", 2)):
        table = pa.table({"image": [picture()] * rows})
        pq.write_table(table, tmp_path / f"cifar10-{split}.PARQUET")
    assert len(open_source(SourceSection(path=str(tmp_path)), "image")) == 3
    assert len(open_source(SourceSection(path=str(tmp_path), split="test"), "image")) == 2
    assert selected(tmp_path) == Selection(
        1, 2, "train", {}, {".parquet": 1}, {"train": 1, "test": 1}
    )


def test_a_split_is_asked_for_that_no_folder_is_named_after(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg")
    with pytest.raises(DataError, match="has no split 'test'; it has no splits"):
        open_source(SourceSection(path=str(tmp_path), split="test"), "image")


def test_what_is_here_is_meant_also_without_a_dot_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "pictures/eval/1.jfif", "pictures/train/2.jfif")
    (tmp_path / "list.txt").write_text("pictures/train/2.jfif\n")
    monkeypatch.chdir(tmp_path)
    assert selected("pictures") == Selection(
        1, 2, "train", {}, {".jfif": 1}, {"train": 1, "test": 1}
    )
    assert names("list.txt") == ["./pictures/train/2.jfif"]


# What is data


def test_what_systems_leave_behind_is_no_data(tmp_path: Path) -> None:
    write(tmp_path, "1.jpg", "@eaDir/1.jpg", "$RECYCLE.BIN/2.jpg", ".thumbnails/3.jpg", "._1.jpg")
    write(tmp_path, "a/@eaDir/1.jpg", "a/2.jpg", "__MACOSX/1.jpg")
    assert names(tmp_path) == ["1.jpg", "a/2.jpg"]
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.put(str(tmp_path), "/odd", recursive=True)
    assert names("memory://odd") == ["1.jpg", "a/2.jpg"]


def test_linked_folders_are_followed_once_and_never_in_a_circle(tmp_path: Path) -> None:
    write(tmp_path, "elsewhere/a/1.jpg", "elsewhere/2.jpg", "set/b/3.jpg")
    folder = tmp_path / "set"
    (folder / "c").symlink_to(tmp_path / "elsewhere")
    (folder / "d").symlink_to(tmp_path / "elsewhere")
    (folder / "e").symlink_to(folder)
    (folder / "f").symlink_to(folder / "b")
    (folder / "g").symlink_to(tmp_path)
    (folder / "h").symlink_to("h")
    (folder / "x.jpg").symlink_to(tmp_path / "elsewhere" / "a")
    (tmp_path / "elsewhere" / "back").symlink_to(folder)
    assert names(folder) == ["b/3.jpg", "c/2.jpg", "c/a/1.jpg", "x.jpg/1.jpg"]
    (tmp_path / "link").symlink_to(folder)
    assert len(names(tmp_path / "link")) == 4


@pytest.mark.parametrize("extension", ["jfif", "jpe", "JPG", "jp2", "j2k", "avif", "gif", "tga"])
def test_whatever_pillow_decodes_is_taken(tmp_path: Path, extension: str) -> None:
    kinds = {"jp2": "JPEG2000", "j2k": "JPEG2000", "avif": "AVIF", "gif": "GIF", "tga": "TGA"}
    kind = kinds.get(extension, "JPEG")
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow is built without AVIF")
    write(tmp_path, f"1.{extension}", content=picture(format=kind))
    write(tmp_path, "1.json", content=b"{}")
    source = open_source(SourceSection(path=str(tmp_path)), "image")
    assert decode_image(source.read(0)).size == (12, 8)
    assert selected(tmp_path).passed_over == {".json": 1}


@pytest.mark.parametrize("extension", ["3gp", "MTS", "m2ts", "ogv", "gif"])
def test_whatever_pyav_decodes_is_taken(
    tmp_path: Path, film: Callable[[Path], Path], extension: str
) -> None:
    film(tmp_path / f"1.{extension}")
    source = open_source(SourceSection(path=str(tmp_path)), "video")
    assert len(decode_clip(source.read(0), 2, 1)) == 2


def test_files_without_extension_are_taken_where_they_decode(tmp_path: Path) -> None:
    write(tmp_path, "a/0001", "a/0002", "b/0003")
    write(tmp_path, "LICENSE", content=b"words")
    assert names(tmp_path) == ["LICENSE", "a/0001", "a/0002", "b/0003"]
    few = write(tmp_path / "few", "1.jpg")
    write(few, "LICENSE", "README", content=b"words")
    assert names(few) == ["1.jpg"]
    assert selected(few).passed_over == {"no extension": 2}


# Tables


def test_tables_about_the_media_beside_them_are_no_set(tmp_path: Path) -> None:
    about = pa.table({"caption": ["a", "b"], "key": [1, 2]})
    for shard in ("00000", "00001"):
        write(tmp_path / "webdataset", f"{shard}/0.jpg", f"{shard}/1.jpg")
        pq.write_table(about, tmp_path / "webdataset" / f"{shard}.parquet")
    assert len(names(tmp_path / "webdataset")) == 4
    assert selected(tmp_path / "webdataset") == Selection(4, 4, None, {".parquet": 2}, {".jpg": 4})
    pq.write_table(about, write(tmp_path / "meta", "1.jpg") / "metadata.parquet")
    assert names(tmp_path / "meta") == ["1.jpg"]


def test_a_table_of_pictures_counts_also_beside_others(tmp_path: Path) -> None:
    pq.write_table(pa.table({"caption": ["a"]}), tmp_path / "metadata.parquet")
    pq.write_table(pa.table({"image": [picture(3)]}), tmp_path / "data.pq")
    source = open_source(SourceSection(path=str(tmp_path)), "image")
    assert np.asarray(decode_image(source.read(0))).max() == 3


def test_relative_paths_are_meant_from_the_tables_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    for number, folder in enumerate(("a", "b")):
        write(tmp_path / "set" / folder, f"images/{number}.png", content=picture(number, "PNG"))
        paths = pa.table({"photo": [f"images/{number}.png"]})
        pq.write_table(paths, tmp_path / "set" / folder / "rows.parquet")
    section = SourceSection(path=str(tmp_path / "set"), column="photo")
    source = open_source(section, "image")
    assert [int(np.asarray(decode_image(source.read(at))).max()) for at in (0, 1)] == [0, 1]


def test_tables_may_differ_in_a_column_that_is_not_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [picture()], "label": [1]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"image": [picture()], "label": ["cat"]}), tmp_path / "1.parquet")
    assert len(open_source(SourceSection(path=str(tmp_path)), "image")) == 2


def test_own_stores_are_read_though_the_hub_is_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    rows = {"image": [{"bytes": picture(), "path": None}] * 2}
    table = datasets.Dataset.from_dict(rows, datasets.Features({"image": datasets.Image()}))
    table.to_parquet(tmp_path / "parquet" / "train.parquet")
    saved = datasets.DatasetDict(fold1=table, fold2=table.select([0]))
    saved.save_to_disk(tmp_path / "saved")
    # What a former save has left is no part of the set.
    shutil.copy(*[tmp_path / "saved" / "fold1" / name for name in _shard(tmp_path)])
    store = uuid.uuid4().hex  # `datasets` keeps downloads by their URL
    for name in ("parquet", "saved"):
        memory.put(str(tmp_path / name), f"/{store}/{name}", recursive=True)
    assert len(open_source(SourceSection(path=f"memory://{store}/parquet"), "image")) == 2
    for split, size in (("fold1", 2), ("fold2", 1)):
        for path in (f"memory://{store}/saved", tmp_path / "saved"):
            assert len(open_source(SourceSection(path=str(path), split=split), "image")) == size
    assert datasets.config.HF_HUB_OFFLINE is True


def _shard(folder: Path) -> tuple[str, str]:
    state = json.loads((folder / "saved" / "fold1" / "state.json").read_bytes())
    return state["_data_files"][0]["filename"], "data-99999-of-99999.arrow"


# Lists


@pytest.mark.parametrize("kind", ["txt", "csv", "tsv", "jsonl", "parquet"])
def test_a_list_of_paths_and_urls(tmp_path: Path, kind: str) -> None:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pipe_file("/web/2.png", picture(2, "PNG"))
    write(tmp_path, "set/0.png", content=picture(0, "PNG"))
    write(tmp_path, "elsewhere/1.png", content=picture(1, "PNG"))
    paths = ["0.png", str(tmp_path / "elsewhere" / "1.png"), "memory://web/2.png"]
    file = tmp_path / "set" / f"list.{kind}"
    if kind == "txt":
        file.write_text("\n".join(paths) + "\n\n")
    elif kind == "jsonl":
        file.write_text("\n".join(json.dumps({"n": 1, "path": path}) for path in paths))
    elif kind == "parquet":
        pq.write_table(pa.table({"n": [1, 2, 3], "url": paths}), file)
    else:
        rows = ["n,image_path", *(f"1,{path}" for path in paths)]
        file.write_text("\n".join(rows).replace(",", "," if kind == "csv" else "\t"))
    source = open_source(SourceSection(path=str(file)), "image")
    found = [int(np.asarray(decode_image(source.read(at))).max()) for at in range(3)]
    assert (len(source), found) == (3, [0, 1, 2])
    assert source.entries()[0].size == os.path.getsize(tmp_path / "set" / "0.png")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "x.csv",
            b"a,b\n1,2\n",
            r"no column of paths or URLs \(.*name one with data.images.column",
        ),
        ("x.jsonl", b"{\n", "cannot be read as a list of images"),
        ("x.jsonl", b"3\n", "a line holds int, neither a text nor an object"),
        ("x.txt", b"\xff\xfe", "is no text in UTF-8"),
        ("x.txt", b"", "is empty"),
    ],
)
def test_what_is_wrong_with_a_list_is_said(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_source(SourceSection(path=str(tmp_path / name)), "image")


def test_a_single_table_is_a_set(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [picture()] * 2}), tmp_path / "pictures.parquet")
    assert len(open_source(SourceSection(path=str(tmp_path / "pictures.parquet")), "image")) == 2
