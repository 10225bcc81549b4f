"""Listing, verifying, falling back, downloading, in every kind of store."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from arlow_trainer.checkpoint.reader import (
    Damaged,
    download,
    list_checkpoints,
    newest_valid,
    read_manifest,
    verify,
)
from arlow_trainer.config.errors import StoreError
from arlow_trainer.storage.store import Store
from support.checkpoints import files_of, flip_byte, new_attempt, save

WEIGHTS = "vision_encoder/model.safetensors"


def test_an_empty_url_has_no_checkpoints(store: Store) -> None:
    assert list_checkpoints(store) == []
    assert newest_valid(store) is None


def test_the_list_is_in_order_of_steps(store: Store) -> None:
    save(store, 2, 10, 9)
    store.write_bytes("pictures/checkpoint-3/x.png", b"")
    store.write_bytes("checkpoint-old/x", b"")
    found = list_checkpoints(store)
    assert [(info.step, info.valid, info.reason) for info in found] == [
        (2, True, ""),
        (9, True, ""),
        (10, True, ""),
    ]
    assert found[0].url == store.url_of("checkpoint-2")
    assert found[0].bytes == read_manifest(store, 2).total_bytes
    assert found[0].created is not None


def test_one_flipped_byte_is_found_and_fallen_back_from(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    save(store, 1, 2)
    flip_byte(store, f"checkpoint-2/{WEIGHTS}", 500)
    [problem] = verify(store, 2)
    assert problem.file == WEIGHTS
    assert "SHA-256" in problem.what
    skipped: list[tuple[int, str]] = []
    newest = newest_valid(store, on_skip=lambda info, why: skipped.append((info.step, why)))
    assert "passing over" not in caplog.text  # `on_skip` says it.
    assert newest is not None
    assert newest.step == 1
    assert skipped == [(2, str(problem))]
    shallow = newest_valid(store, deep=False)
    assert shallow is not None
    assert shallow.step == 2


def test_every_byte_of_the_manifest_counts() -> None:
    store = Store(f"memory://{new_attempt()}/run")
    save(store, 1, 2)
    good = store.read_bytes("checkpoint-2/manifest.json")
    for index in range(len(good)):
        flip_byte(store, "checkpoint-2/manifest.json", index)
        problems = verify(store, 2)
        assert [problem.file for problem in problems] == ["manifest.json"], index
        store.write_bytes("checkpoint-2/manifest.json", good)
    flip_byte(store, "checkpoint-2/manifest.json", 40)
    newest = newest_valid(store)
    assert newest is not None
    assert newest.step == 1


def test_missing_and_short_files_are_seen_without_reading(store: Store) -> None:
    save(store, 1, 2, 3)
    store.delete(f"checkpoint-1/{WEIGHTS}")
    store.write_bytes(f"checkpoint-2/{WEIGHTS}", b"short")
    store.delete("checkpoint-3/manifest.json")
    found = {
        info.step: (info.valid, info.unfinished, info.reason) for info in list_checkpoints(store)
    }
    assert found[1] == (False, False, f"{WEIGHTS}: is missing")
    assert found[2] == (False, False, f"{WEIGHTS}: has 5 bytes instead of 1000")
    assert found[3][:2] == (False, True)
    assert [str(problem) for problem in verify(store, 1)] == [f"{WEIGHTS}: is missing"]
    assert [problem.file for problem in verify(store, 2)] == [WEIGHTS]
    with pytest.raises(StoreError, match="checkpoint-3 is no checkpoint"):
        verify(store, 3)
    with pytest.raises(Damaged):
        newest_valid(store)


def test_a_manifest_of_another_step_is_damaged(store: Store) -> None:
    save(store, 1, 2)
    store.write_bytes("checkpoint-2/manifest.json", store.read_bytes("checkpoint-1/manifest.json"))
    with pytest.raises(Damaged, match="manifest of step 1"):
        read_manifest(store, 2)


def test_downloads_are_verified(store: Store, tmp_path: Path) -> None:
    save(store, 1)
    target = tmp_path / "into"
    paths = download(store, 1, [WEIGHTS, "trainer_state.json"], target)
    assert paths == [target / WEIGHTS, target / "trainer_state.json"]
    assert (target / WEIGHTS).stat().st_size == 1000
    with pytest.raises(StoreError, match=r"checkpoint-1/none is not a file"):
        download(store, 1, ["none"], target)
    flip_byte(store, f"checkpoint-1/{WEIGHTS}", 3)
    with pytest.raises(Damaged, match=rf"checkpoint-1/{WEIGHTS} is damaged: .*SHA-256"):
        download(store, 1, [WEIGHTS], tmp_path / "other")
    assert not (tmp_path / "other" / WEIGHTS).exists()


def test_where_nothing_is_intact_no_run_begins_anew(store: Store) -> None:
    store.write_bytes("checkpoint-5/half", b"left by a kill")
    assert newest_valid(store) is None
    save(store, 1, 2)
    flip_byte(store, f"checkpoint-1/{WEIGHTS}")
    flip_byte(store, "checkpoint-2/manifest.json", 40)
    with pytest.raises(StoreError) as caught:
        newest_valid(store)
    for part in (
        store.url,
        "checkpoint-2: ",
        f"checkpoint-1: {WEIGHTS}",
        "remove",
        "metadata.name",
    ):
        assert part in str(caught.value)
    assert "checkpoint-5" not in str(caught.value)


@pytest.mark.parametrize(
    ("number", "damage"), [(errno.EIO, True), (errno.ESTALE, False), (errno.EACCES, False)]
)
@pytest.mark.parametrize("name", [WEIGHTS, "manifest.json"])
def test_only_a_failing_disk_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, damage: bool, name: str
) -> None:
    store = Store(str(tmp_path))
    save(store, 1, 2)
    read = LocalFileSystem.cat_file

    def failing(self: Any, path: str, **options: Any) -> Any:
        if path.endswith(f"checkpoint-2/{name}"):
            raise OSError(number, os.strerror(number))
        return read(self, path, **options)

    monkeypatch.setattr(LocalFileSystem, "cat_file", failing)
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    if damage:
        newest = newest_valid(store)
        assert newest is not None
        assert newest.step == 1
        assert [problem.file for problem in verify(store, 2)] == [name]
    else:
        with pytest.raises(StoreError, match=os.strerror(number)) as caught:
            newest_valid(store)
        assert not isinstance(caught.value, Damaged)


def test_a_folder_in_the_place_of_a_file_is_a_problem(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    save(store, 1, files=files_of(1))
    weights = tmp_path / "checkpoint-1" / WEIGHTS
    weights.unlink()
    weights.mkdir()
    assert [problem.file for problem in verify(store, 1)] == [WEIGHTS]


def test_a_mark_that_cannot_be_read_is_told_in_its_own_line(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    save(store, 1)
    for step in (2, 3, 4):
        (tmp_path / f"checkpoint-{step}").mkdir()
    with (tmp_path / "checkpoint-2" / "save.json").open("wb") as file:
        file.truncate(2**30)
    (tmp_path / "checkpoint-3" / "save.json").write_bytes(b"{")
    (tmp_path / "checkpoint-4" / "save.json").write_bytes(b"\xff" * 100)
    found = list_checkpoints(store)
    assert [(info.step, info.valid, info.marked) for info in found] == [
        (1, True, False),
        (2, False, False),
        (3, False, False),
        (4, False, False),
    ]
    assert found[1].reason.startswith("unfinished: it has no manifest, and ")
    assert "save.json is damaged: it has 1,073,741,824 bytes" in found[1].reason


def test_a_mark_on_a_failing_disk_is_told_in_its_own_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
    store.write_bytes("checkpoint-2/save.json", b"{}")

    def fail(*_: object, **__: object) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(LocalFileSystem, "cat_file", fail)
    [info] = list_checkpoints(store)
    assert not info.marked
    assert "Permission denied" in info.reason
