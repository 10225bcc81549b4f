"""A real S3 server for the whole session, and a folder of its bucket for every test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from arlow_trainer.checkpoint.store import Store
from support.s3_server import S3, S3Unavailable, running_s3


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    try:
        context = running_s3(tmp_path_factory.mktemp("s3"))
        server = context.__enter__()
    except S3Unavailable as error:
        pytest.skip(str(error))
    try:
        yield server
    finally:
        context.__exit__(None, None, None)


@pytest.fixture
def s3_store(s3: S3) -> Store:
    return Store(s3.url(f"{uuid.uuid4().hex}/run"), s3.options)


@pytest.fixture(params=["s3", "local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A new, empty run URL in every kind of store."""
    if request.param == "s3":
        return request.getfixturevalue("s3_store")
    if request.param == "local":
        return Store(str(tmp_path / "runs" / "run"))
    return Store(f"memory://{uuid.uuid4().hex}/run")
