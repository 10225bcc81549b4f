"""Whether a set is what it was, from what a listing says of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import datasets
import pytest

from arlow_trainer.config import SourceSection
from arlow_trainer.data import fingerprint
from arlow_trainer.data.file_names import store_names
from arlow_trainer.data.files import MediaSource
from arlow_trainer.data.fingerprint import MAX_ENTRIES, Entry, sampled_positions
from arlow_trainer.data.folder import open_folder
from arlow_trainer.storage.connection import connect
from support.s3_server import S3

PRINT = """
import sys
from arlow_trainer.config import SourceSection
from arlow_trainer.data import fingerprint
from arlow_trainer.data.folder import open_folder
print(fingerprint(open_folder(SourceSection(path=sys.argv[1]), "image")[0].entries()))
"""


def printed(path: str) -> dict[str, str]:
    return fingerprint(open_folder(SourceSection(path=path), "image")[0].entries())


def changed(before: dict[str, str], now: dict[str, str]) -> list[str]:
    assert before.keys() == now.keys() == {"names", "sizes", "times"}
    return [what for what in now if now[what] != before[what]]


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 1000, 1_281_167])
def test_a_bounded_sample_from_the_whole_set(size: int) -> None:
    positions = sampled_positions(size)
    assert len(positions) == len(set(positions)) == min(size, MAX_ENTRIES)
    assert positions == sorted(positions)
    assert positions[0] == 0
    assert size - 1 - size // MAX_ENTRIES - 1 <= positions[-1] < size


def test_nothing_known_is_no_fingerprint() -> None:
    assert sampled_positions(0) == []
    assert fingerprint([]) == {}
    assert fingerprint([Entry("a", None, None)]).keys() == {"names", "sizes", "times"}


def test_a_folder(image_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    shutil.copytree(image_folder, folder)
    before = printed(str(folder))
    assert changed(before, printed(str(folder))) == []
    file = sorted(folder.iterdir())[0]
    state = file.stat()
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 10**9))
    assert changed(before, printed(str(folder))) == ["times"]
    file.write_bytes(file.read_bytes() + b" ")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert changed(before, printed(str(folder))) == ["sizes"]
    shutil.rmtree(folder)
    shutil.copytree(image_folder, folder)
    file.rename(file.with_stem("other"))
    assert "names" in changed(before, printed(str(folder)))


def test_a_folder_on_s3(s3: S3, photographs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    url = s3.url(uuid.uuid4().hex)
    fs, root = connect(url)
    type(fs).clear_instance_cache()
    fs, root = connect(url)
    fs.put_file(str(photographs[3]), f"{root}/a.jpg")
    before = printed(url)
    assert changed(before, printed(url)) == []
    fs.put_file(str(photographs[0]), f"{root}/a.jpg")
    assert "sizes" in changed(before, printed(url))
    type(fs).clear_instance_cache()


def test_a_file_that_is_gone_and_a_store_that_fails(tmp_path: Path) -> None:
    [entry] = MediaSource("set", str(tmp_path), store_names(["gone.jpg"])).entries()
    assert entry == Entry("gone.jpg", None, None)
    assert MediaSource("set", "s3://bucket", store_names(["a" * 2000])).entries() == []


@pytest.mark.parametrize("kind", ["parquet", "saved"])
def test_a_table(
    kind: str, photographs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "table"

    def write(file: Path) -> dict[str, str]:
        shutil.rmtree(folder, ignore_errors=True)
        table = datasets.Dataset.from_dict({"image": [file.read_bytes()]})
        if kind == "parquet":
            folder.mkdir()
            table.to_parquet(folder / "train.parquet")
        else:
            table.save_to_disk(folder)
        return printed(str(folder))

    before = write(photographs[0])
    assert changed(before, printed(str(folder))) == []
    # As a resumed run is: another process.
    command = [sys.executable, "-c", PRINT, str(folder)]
    other = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert other.splitlines()[-1] == str(before)
    assert "names" in changed(before, write(photographs[1]))
