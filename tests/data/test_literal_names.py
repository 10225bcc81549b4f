"""Data named with what fsspec and `datasets` could take for patterns or versions."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest

from arlow_trainer.config import SourceSection
from arlow_trainer.data import open_source
from arlow_trainer.data.decode import decode_image
from arlow_trainer.data.files import MediaSource
from arlow_trainer.storage.connection import connect
from support.s3_server import S3

FOLDERS = ["set[1]", "set #1 100%", "set?versionId=1", "a::b"]
FILES = ["[1].jpg", "a*b.jpg", "a?.jpg", "a?versionId=1.jpg", "a#1.jpg", "100%25.jpg", "ü b.jpg"]


@pytest.fixture(params=["local", "s3"])
def base(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A new, empty URL that the environment gives access to."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    if request.param == "local":
        yield str(tmp_path / "data")
        return
    s3: S3 = request.getfixturevalue("s3")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    s3_class = type(connect("s3://bucket")[0])
    s3_class.clear_instance_cache()
    yield s3.url(uuid.uuid4().hex)
    s3_class.clear_instance_cache()


def put(file: Path, url: str) -> None:
    fs, path = connect(url)
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    fs.put_file(str(file), path)


@pytest.mark.parametrize("folder", FOLDERS)
def test_images(base: str, folder: str, photographs: list[Path]) -> None:
    url = f"{base}/{folder}"
    for file in FILES:
        put(photographs[3], f"{url}/{file}")
    source = open_source(SourceSection(path=url), "image")
    assert isinstance(source, MediaSource)
    samples = [source.read(index) for index in range(len(source))]
    assert [sample.name for sample in samples] == [f"{url}/{file}" for file in sorted(FILES)]
    for sample in samples:
        assert decode_image(sample).size == (640, 427)


def test_a_video_with_a_number_pattern_in_its_name(tmp_path: Path, videos: list[Path]) -> None:
    folder = tmp_path / "set[1]#%d"
    folder.mkdir()
    shutil.copy(videos[1], folder / "a:%03d[1]?*.mp4")
    assert len(open_source(SourceSection(path=str(folder)), "video")) == 1


@pytest.mark.parametrize("name", ["set[1]", "set*", "set #1 100%"])
def test_tables(base: str, name: str, photographs: list[Path], tmp_path: Path) -> None:
    for folder, file in (
        ("set1", photographs[0]),
        ("setx", photographs[0]),
        (name, photographs[1]),
    ):
        table = datasets.Dataset.from_dict({"image": [file.read_bytes()]})
        table.to_parquet(tmp_path / "table.parquet")
        put(tmp_path / "table.parquet", f"{base}/{folder}/train[1].parquet")
    source = open_source(SourceSection(path=f"{base}/{name}"), "image")
    assert len(source) == 1
    assert source.read(0).content == photographs[1].read_bytes()
