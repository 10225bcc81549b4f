"""Sets in a real S3 store."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import datasets
import fsspec
import pytest

from arlow_trainer.config import DataSection, ModelSection, SourceSection
from arlow_trainer.config.errors import CredentialsError, DataError
from arlow_trainer.data import StepLoader, open_source
from support.s3_server import S3, S3Unavailable, running_s3


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    try:
        with running_s3(tmp_path_factory.mktemp("s3")) as server:
            yield server
    except S3Unavailable as why:
        pytest.skip(str(why))


@pytest.fixture(autouse=True)
def _environment(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    yield
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture
def stored_images(s3: S3, image_folder: Path) -> str:
    filesystem, root = fsspec.url_to_fs(s3.url("images"))
    for picture in image_folder.iterdir():
        filesystem.put_file(str(picture), f"{root}/train/{picture.name}")
    return s3.url("images")


def test_pictures_reach_the_decoding_processes(stored_images: str, image_folder: Path) -> None:
    data = DataSection(image_size=56, video_probability=0)
    steps = []
    for path in (stored_images, str(image_folder)):
        source = open_source(SourceSection(path=path), "image")
        loader = StepLoader(data, ModelSection(), {"image": source}, 0, 6, 0, 1, 6, 1, 0)
        steps.append(next(islice(loader, 1)).micro_batches[0].frames)
    assert steps[0].equal(steps[1])


def test_tables(
    s3: S3, photographs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    table = datasets.Dataset.from_dict({"image": [path.read_bytes() for path in photographs]})
    table.to_parquet(tmp_path / "train.parquet")
    filesystem, root = fsspec.url_to_fs(s3.url("table"))
    filesystem.put_file(str(tmp_path / "train.parquet"), f"{root}/train.parquet")
    source = open_source(SourceSection(path=s3.url("table")), "image")
    assert source.read(2).content == photographs[2].read_bytes()


def test_wrong_credentials_are_told(stored_images: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(CredentialsError, match=r"access was refused: .*check the credentials"):
        open_source(SourceSection(path=stored_images), "image")


def test_no_credentials_are_told(stored_images: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(CredentialsError, match="access was refused"):
        open_source(SourceSection(path=stored_images), "image")


def test_a_bucket_or_folder_that_is_not_there_is_told(s3: S3) -> None:
    for path in (s3.url("nothing"), "s3://no-such-bucket/images"):
        with pytest.raises(DataError, match="no such folder"):
            open_source(SourceSection(path=path), "image")
