"""A folder's listing: its order, and what it costs the processes that share it."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arlow_trainer.config import SourceSection
from arlow_trainer.config.errors import CredentialsError, DataError
from arlow_trainer.data.file_names import store_names
from arlow_trainer.data.files import MediaSource
from arlow_trainer.data.folder import open_folder

encodable = st.text().filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text))


def opened(folder: Path) -> MediaSource:
    source = open_folder(SourceSection(path=str(folder)), "image")[0]
    assert isinstance(source, MediaSource)
    return source


def names_of(source: MediaSource) -> list[str]:
    return [source.read(index).name for index in range(len(source))]


@given(st.lists(encodable))
def test_names_come_back_as_they_were(names: list[str]) -> None:
    stored = store_names(names)
    assert list(stored) == names
    assert list(pickle.loads(pickle.dumps(stored))) == names
    assert list(islice(stored, 2)) == stored[:2] == names[:2]
    with pytest.raises(IndexError):
        stored[len(names)]


def test_files_are_sorted_by_their_whole_path(tmp_path: Path) -> None:
    files = ["a/x.jpg", "a-b/x.jpg", "a.jpg", "a/b/2.jpg", "a/b/10.jpg", "A/x.jpg", "é/ü.jpg"]
    for file in [*files, ".hidden.jpg", "a/.hidden/x.jpg", "lost+found/x.jpg"]:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    found = fsspec.filesystem("file").find(str(tmp_path))
    expected = sorted(f"{tmp_path}/{file}" for file in files)
    assert [file for file in found if "/." not in file and "lost+found" not in file] == expected
    assert names_of(opened(tmp_path)) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="macOS refuses such names: run it on Linux")
def test_a_name_that_is_no_text_is_found_again(tmp_path: Path) -> None:
    file = os.fsencode(tmp_path) + b"/\xff.jpg"
    with open(file, "wb"):
        pass
    assert os.fsencode(str(opened(tmp_path).read(0).content)) == file


def test_what_a_worker_is_sent_does_not_grow_with_the_set(tmp_path: Path) -> None:
    sent = []
    for count in (1, 500):
        for number in range(count):
            (tmp_path / f"{number}.jpg").touch()
        source = opened(tmp_path)
        assert len(source) == count
        sent.append(len(pickle.dumps(source)))
    assert abs(sent[1] - sent[0]) < 20  # the count's own digits, and the handle's


def test_nothing_is_left_in_the_temporary_folder(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    source = opened(image_folder)
    assert list(tmp_path.iterdir()) == []
    assert len(names_of(source)) == len(list(image_folder.iterdir()))


def test_a_temporary_folder_that_cannot_be_written_is_reported(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"cannot be stored in the temporary folder: .*TMPDIR"):
        opened(image_folder)


def test_a_folder_that_may_not_be_read_is_not_skipped(
    image_folder: Path, as_nobody: Callable[[], AbstractContextManager[None]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        closed = Path(folder) / "closed"
        closed.mkdir()
        (Path(folder) / "open.jpg").write_bytes((image_folder / "rocket.jpg").read_bytes())
        Path(folder).chmod(0o755)
        closed.chmod(0)
        with as_nobody(), pytest.raises(CredentialsError, match=r"access was refused: .*closed"):
            opened(Path(folder))
