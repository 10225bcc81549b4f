"""Sets in a store that the environment does not name: `options` of images and videos."""

from __future__ import annotations

import uuid
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from arlow_trainer.config import SourceSection
from arlow_trainer.config.errors import StoreError
from arlow_trainer.data import open_source
from arlow_trainer.data.decode import decode_image
from support.quick_retries import quick_retries
from support.s3_server import S3


@pytest.fixture
def elsewhere(s3: S3, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The options that reach the server, in an environment that knows its keys alone."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    return {"endpoint": s3.endpoint}


@pytest.fixture
def stored(s3: S3, elsewhere: dict[str, str], photographs: list[Path], tmp_path: Path) -> str:
    """URL of a folder with photographs, a list of them, and in a folder beside it their table."""
    url = s3.url(f"set-{uuid.uuid4().hex}")
    fs, root = fsspec.url_to_fs(url, **s3.options)
    files = photographs[:3]
    for file in files:
        fs.put_file(str(file), f"{root}/media/{file.name}")
    fs.pipe_file(f"{root}/media/list.txt", "\n".join(file.name for file in files).encode())
    cells = pa.array([{"bytes": file.read_bytes(), "path": None} for file in files])
    pq.write_table(pa.table({"image": cells}), tmp_path / "1.parquet")
    fs.put_file(str(tmp_path / "1.parquet"), f"{root}/table/1.parquet")
    return url


@pytest.mark.parametrize("path", ["media", "media/list.txt", "table", "table/1.parquet"])
def test_a_set_is_reached_by_its_options(
    stored: str,
    elsewhere: dict[str, str],
    path: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    section = SourceSection.model_validate({"path": f"{stored}/{path}", "options": elsewhere})
    source = open_source(section, "image")
    assert len(source) == 3
    assert {decode_image(source.read(position)).mode for position in range(3)} == {"RGB"}
    assert source.entries()


def test_without_them_the_environment_says_where(
    stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_retries(monkeypatch)
    with pytest.raises(StoreError, match="check the path, the endpoint and the network"):
        open_source(SourceSection(path=f"{stored}/media"), "image")


@pytest.mark.parametrize("path", ["./data", "/data", "ILSVRC/imagenet-1k"])
def test_what_is_in_no_store_has_none(path: str) -> None:
    with pytest.raises(ValidationError, match=r"options: set is not allowed; allowed: unset where"):
        SourceSection.model_validate({"path": path, "options": {"anonymous": True}})
