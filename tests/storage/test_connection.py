"""The file system that a URL leads to, and the options that it is given."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest
from fsspec.registry import _registry

from arlow_trainer.storage.connection import connect


class WithoutOptions(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """Takes no option that it does not know, as SFTP's file system does not."""

    protocol = "sftp"

    def __init__(self) -> None:
        super().__init__()


def test_a_file_system_outside_the_stores_is_given_no_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(_registry, "sftp", WithoutOptions)
    fs, path = connect("sftp://host/images")
    assert isinstance(fs, WithoutOptions)
    assert path == "host/images"


def test_a_local_path_needs_no_scheme(tmp_path: Path) -> None:
    for url in (str(tmp_path), f"file://{tmp_path}"):
        fs, path = connect(url)
        assert "file" in fs.protocol
        assert path == str(tmp_path)


def test_the_retries_of_s3_do_not_multiply() -> None:
    fs, path = connect("s3://bucket/images", key="k", secret="s")
    assert path == "bucket/images"
    assert fs.retries == 1
    assert fs.config_kwargs["retries"]["total_max_attempts"] == 2
    assert fs.dircache.use_listings_cache is False
    own, _ = connect("s3://bucket/images", config_kwargs={"retries": {"total_max_attempts": 5}})
    assert own.config_kwargs["retries"] == {"total_max_attempts": 5}


def test_an_unknown_scheme_is_named() -> None:
    with pytest.raises(ValueError, match="ftpx"):
        connect("ftpx://host/images")
