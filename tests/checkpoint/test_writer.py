"""Saving in the background, in every kind of store."""

from __future__ import annotations

import errno
import gc
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path

import pytest

from arlow_trainer.checkpoint.layout import manifest_key
from arlow_trainer.checkpoint.reader import list_checkpoints, read_manifest, verify
from arlow_trainer.checkpoint.writer import BackgroundWriter, SaveEvent
from arlow_trainer.config.errors import ArlowError, ExitCode, StoreError
from arlow_trainer.storage.store import Store
from support.checkpoints import files_of, flip_byte, new_attempt, only_rank, save


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "run"))


def test_a_save_is_complete_and_described(store: Store) -> None:
    [first, second] = save(store, 5, 10)
    assert (first.step, first.url, first.error) == (5, store.url_of("checkpoint-5"), None)
    assert first.bytes == second.bytes - 1 == 1000 + len(b'{"step": 5}') + 2
    assert first.duration_s > 0
    manifest = read_manifest(store, 10)
    assert sorted(manifest.files) == [
        "trainer_state.json",
        "vision_encoder/config.json",
        "vision_encoder/model.safetensors",
    ]
    assert set(store.list("checkpoint-10")) == {
        "checkpoint-10/manifest.json",
        *(f"checkpoint-10/{name}" for name in manifest.files),
    }
    assert verify(store, 5) == verify(store, 10) == []


def test_submit_returns_at_once_and_only_one_save_is_under_way(local: Store) -> None:
    finish = threading.Event()
    finished: list[bool] = []

    def slow(path: Path) -> None:
        assert finish.wait(60)
        time.sleep(0.1)
        finished.append(True)
        path.write_bytes(b"slow")

    with only_rank(local) as writer:
        # It comes back before the file is written, for that waits for what follows here.
        writer.submit(1, {"slow": slow})
        assert not writer.poll()
        assert not finished
        finish.set()
        assert writer.submit(2, {"quick": b"2"}) > 0
        assert finished
        writer.wait()
        assert writer.poll()
    assert [info.step for info in list_checkpoints(local) if info.valid] == [1, 2]


@pytest.mark.parametrize("raised_by", ["submit", "poll", "wait"])
def test_a_failure_is_raised_once_and_leaves_no_manifest(local: Store, raised_by: str) -> None:
    def broken(path: Path) -> None:
        path.write_bytes(b"half of it")
        raise RuntimeError("lost")

    events: list[SaveEvent] = []
    save(local, 1)
    with only_rank(local, events.append) as writer:
        writer.submit(2, {"a": b"uploaded before", "b": broken})
        action = {
            "submit": lambda: writer.submit(3, files_of(3)),
            "wait": writer.wait,
            "poll": lambda: _poll_until_done(writer),
        }
        with pytest.raises(ArlowError, match=r"RuntimeError: lost.*a bug in Arlow") as caught:
            action[raised_by]()
        assert caught.value.exit_code == ExitCode.INTERNAL
        assert [event.error for event in events] == [str(caught.value)]
        assert local.list("checkpoint-2") == {}
        writer.submit(4, files_of(4))
        writer.wait()
    assert [info.step for info in list_checkpoints(local) if info.valid] == [1, 4]


def test_nothing_holds_what_was_saved(local: Store) -> None:
    """It may be gigabytes, and the next save is a thousand steps away."""

    class Content:
        def __call__(self, path: Path) -> None:
            path.write_bytes(b"content")

    with only_rank(local) as writer:
        content = Content()
        saved = weakref.ref(content)
        writer.submit(1, {"a": content})
        del content
        writer.wait()
        gc.collect()
        assert saved() is None


def test_a_failing_event_handler_does_not_stop_saving(local: Store) -> None:
    def handler(event: SaveEvent) -> None:
        raise RuntimeError("handler")

    with only_rank(local, handler) as writer:
        for step in (1, 2):
            writer.submit(step, files_of(step))
        writer.wait()
    assert len(list_checkpoints(local)) == 2


def test_a_step_saved_again_replaces_a_damaged_one(store: Store) -> None:
    save(store, 7, files={"shard-0": b"00", "shard-1": b"11"})
    flip_byte(store, "checkpoint-7/shard-0")
    save(store, 7, files={"shard-0": b"whole"})
    assert verify(store, 7) == []
    assert "checkpoint-7/shard-1" not in store.list()


def test_the_old_manifest_goes_before_the_files_change(local: Store) -> None:
    save(local, 7)
    seen: list[bool] = []
    files = {"x": lambda path: (seen.append(local.exists(manifest_key(7))), path.write_bytes(b"x"))}
    save(local, 7, files=files)
    assert seen == [False]


@pytest.mark.parametrize("name", ["../a", "/a", "manifest.json", "a//b"])
def test_files_stay_inside_their_checkpoint(local: Store, name: str) -> None:
    with (
        only_rank(local) as writer,
        pytest.raises(ValueError, match="checkpoint"),
    ):
        writer.submit(1, {name: b""})


def test_staging_is_cleaned_of_dead_attempts(tmp_path: Path) -> None:
    store = Store(f"memory://{new_attempt()}/run")
    staging = tmp_path / "staging"
    with only_rank(store, staging=staging) as writer:
        writer.submit(1, files_of(1))
        writer.wait()
        [run] = staging.iterdir()
        dead = run / f"{new_attempt()}-0"
        dead.mkdir()
        (dead / "model.safetensors").write_bytes(b"left by a kill")
        writer.submit(2, files_of(2))
        writer.wait()
        assert not dead.exists()
    assert list(staging.iterdir()) == []


def _poll_until_done(writer: BackgroundWriter) -> None:
    deadline = time.monotonic() + 30
    while not writer.poll() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_save_is_marked_until_it_is_committed_or_has_failed(store: Store) -> None:
    seen: list[dict[str, int]] = []

    def fails(path: Path) -> None:
        seen.append(store.list("checkpoint-1"))
        raise OSError(errno.ENOSPC, "No space left on device")

    with only_rank(store) as writer:
        for content in (fails, lambda path: path.write_bytes(b"fine")):
            writer.submit(1, {"a": b"first", "b": content})
            with suppress(StoreError):
                writer.wait()
            if len(seen) == 1:
                # "a" is uploaded beside "b", and may not have arrived.
                marked = {"checkpoint-1/save.json"}
                assert marked <= seen[0].keys() <= marked | {"checkpoint-1/a"}
                seen.append(store.list("checkpoint-1"))
    assert seen[1] == {}
    assert store.list().keys() == {f"checkpoint-1/{name}" for name in ("a", "b", "manifest.json")}


@pytest.mark.parametrize("names", [(), ("config.json",), ("a/b/c.json", "d.json")])
def test_a_save_that_failed_leaves_no_folder(local: Store, names: tuple[str, ...]) -> None:
    def fail(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with only_rank(local) as writer:
        writer.submit(1, {**dict.fromkeys(names, b"{}"), "vision_encoder/x.safetensors": fail})
        with pytest.raises(StoreError, match="No space left"):
            writer.wait()
    assert local.local_path is not None
    assert [path.name for path in local.local_path.rglob("checkpoint-*")] == []


def test_a_save_that_failed_leaves_what_others_put_there(local: Store) -> None:
    local.write_bytes("checkpoint-1/restored/part", b"x")
    assert local.local_path is not None
    (local.local_path / "checkpoint-1" / "restored" / "empty").mkdir()
    with only_rank(local) as writer:
        writer.submit(1, files_of(1))
        with pytest.raises(StoreError, match="that this run did not write"):
            writer.wait()
    assert (local.local_path / "checkpoint-1" / "restored" / "empty").is_dir()


def test_files_of_others_are_not_written_over(store: Store) -> None:
    """A checkpoint whose manifest a restored backup lacks so far."""
    save(store, 1)
    before = {key: store.read_bytes(key) for key in store.list()}
    store.delete("checkpoint-1/manifest.json")
    del before["checkpoint-1/manifest.json"]
    with only_rank(store) as writer:
        writer.submit(1, files_of(7))
        with pytest.raises(StoreError, match=r"checkpoint-1 holds 3 files without manifest\.json"):
            writer.wait()
    assert {key: store.read_bytes(key) for key in store.list()} == before
