"""Folders and tables behind URLs: in a real S3 store, and on servers that stop or stay silent."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import datasets
import fsspec
import pytest

from arlow_trainer.config import DataSection, SourceSection
from arlow_trainer.config.errors import CredentialsError, DataError, StoreError
from arlow_trainer.data import BrokenSample, Source, open_source
from arlow_trainer.data.file_names import store_names
from arlow_trainer.data.files import MediaSource
from arlow_trainer.data.folder import open_folder
from arlow_trainer.storage import remote_files
from support.loaders import one_rank_loader
from support.quick_retries import ATTEMPTS, quick_retries
from support.s3_server import S3, running_s3
from support.silent_server import silent_server


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    return quick_retries(monkeypatch)


@pytest.fixture
def reach(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Makes the following connections with these variables; the earlier ones are forgotten."""

    def set_environment(variables: dict[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()

    yield set_environment
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture
def stored_images(s3: S3, reach: Callable[..., None], image_folder: Path) -> str:
    """The URL of a folder of images that the environment gives access to."""
    reach(s3.environment)
    url = s3.url(f"images-{uuid.uuid4().hex}")
    upload(image_folder, url)
    return url


def upload(folder: Path, url: str) -> None:
    fs, root = fsspec.url_to_fs(url)
    for image in folder.iterdir():
        fs.put_file(str(image), f"{root}/train/{image.name}")


def listed(url: str) -> Source:
    return open_folder(SourceSection(path=url), "image")[0]


def file_of(url: str, name: str = "train/rocket.jpg") -> MediaSource:
    """A set of one file, not listed; its connection is made at the first read."""
    return MediaSource(url, url, store_names([name]))


def test_images_reach_the_decoding_processes(stored_images: str, image_folder: Path) -> None:
    data = DataSection(image_size=56, video_probability=0)
    steps = []
    for path in (stored_images, str(image_folder)):
        source = open_source(SourceSection(path=path), "image")
        loader = one_rank_loader(data, {"image": source}, batch=6, workers=1)
        steps.append(next(islice(loader, 1)).micro_batches[0].frames)
    assert steps[0].equal(steps[1])


def test_tables(
    s3: S3,
    reach: Callable[..., None],
    photographs: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reach(s3.environment)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    table = datasets.Dataset.from_dict({"image": [path.read_bytes() for path in photographs]})
    table.to_parquet(tmp_path / "train.parquet")
    fs, root = fsspec.url_to_fs(s3.url("table"))
    fs.put_file(str(tmp_path / "train.parquet"), f"{root}/train.parquet")
    source = open_source(SourceSection(path=s3.url("table")), "image")
    assert source.read(2).content == photographs[2].read_bytes()


def test_cells_that_are_urls(stored_images: str, image_folder: Path, tmp_path: Path) -> None:
    rows = {"image": [{"bytes": None, "path": f"{stored_images}/train/rocket.jpg"}]}
    features = datasets.Features({"image": datasets.Image(decode=False)})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    source = open_source(SourceSection(path=str(tmp_path / "saved")), "image")
    assert source.read(0).content == (image_folder / "rocket.jpg").read_bytes()


# What the server refuses or lacks


@pytest.mark.parametrize("variable", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_wrong_credentials_end_listing_and_reading_at_once(
    stored_images: str, reach: Callable[..., None], waits: list[float], variable: str
) -> None:
    reach({variable: "wrong"})
    for operation in (lambda: listed(stored_images), lambda: file_of(stored_images).read(0)):
        began = time.monotonic()
        with pytest.raises(CredentialsError, match=r"access was refused: .*check the credentials"):
            operation()
        assert time.monotonic() - began < 30
    assert waits == []


def test_credentials_refused_in_the_middle_end_the_run_at_once(
    stored_images: str, reach: Callable[..., None], waits: list[float]
) -> None:
    source = open_source(SourceSection(path=stored_images), "image")
    reach({"AWS_SECRET_ACCESS_KEY": "expired"})
    data = DataSection(image_size=56, video_probability=0)
    steps = one_rank_loader(data, {"image": source}, batch=6, workers=1)
    began = time.monotonic()
    with pytest.raises(CredentialsError, match="access was refused") as raised:
        next(iter(steps))
    assert raised.value.exit_code == 77
    assert time.monotonic() - began < 60


def test_no_credentials_end_listing_and_reading_at_once(
    stored_images: str,
    reach: Callable[..., None],
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    reach({"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"})
    for operation in (lambda: listed(stored_images), lambda: file_of(stored_images).read(0)):
        with pytest.raises(CredentialsError, match="access was refused"):
            operation()
    assert waits == []


def test_a_bucket_or_folder_that_does_not_exist_is_named(
    s3: S3, reach: Callable[..., None], waits: list[float]
) -> None:
    reach(s3.environment)
    for path in (s3.url("nothing"), "s3://no-such-bucket/images"):
        with pytest.raises(DataError, match=f"{path}: no such folder"):
            open_source(SourceSection(path=path), "image")
    assert waits == []


def test_a_missing_file_is_broken_and_a_missing_bucket_is_not(
    stored_images: str, waits: list[float]
) -> None:
    with pytest.raises(BrokenSample, match=r"train/gone\.jpg: the file is gone"):
        file_of(stored_images, "train/gone.jpg").read(0)
    with pytest.raises(DataError, match=r"s3://no-such-bucket/train/rocket\.jpg: cannot be read"):
        file_of("s3://no-such-bucket").read(0)
    assert waits == []


# Servers that stop or stay silent


def test_a_server_that_stopped_is_tried_again_and_is_the_stores_failure(
    s3: S3,
    image_folder: Path,
    reach: Callable[..., None],
    waits: list[float],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with running_s3(tmp_path) as server:
        reach(server.environment)
        url = server.url("images")
        upload(image_folder, url)
        source = open_source(SourceSection(path=url), "image")
        server.kill()
        for operation in (lambda: source.read(0), lambda: listed(url)):
            waits.clear()
            caplog.clear()
            with pytest.raises(StoreError, match=rf"{url}.*: cannot be read: .*check the path"):
                operation()
            assert len(waits) == ATTEMPTS - 1
            assert sum("trying again for up to" in message for message in caplog.messages) == 1


def test_a_silent_server_is_not_waited_for_without_an_end(
    reach: Callable[..., None], waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_files, "READ_TIMEOUT_S", 1.0)
    monkeypatch.setattr(remote_files, "LIST_TIMEOUT_S", 1.0)
    with silent_server() as endpoint:
        reach(
            {
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_ACCESS_KEY_ID": "k",
                "AWS_SECRET_ACCESS_KEY": "s",
            }
        )
        for operation in (
            lambda: listed("s3://runs/images"),
            lambda: file_of("s3://runs/images").read(0),
            lambda: file_of(endpoint).read(0),
        ):
            began = time.monotonic()
            with pytest.raises(StoreError, match=r"it has not answered for 1 s; check the path"):
                operation()
            assert time.monotonic() - began < 30
    assert waits == []
