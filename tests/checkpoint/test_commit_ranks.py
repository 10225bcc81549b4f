"""Ranks of one save: committed together or not at all, and an end that waits for nobody."""

from __future__ import annotations

import errno
import json
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from save_actions import play

from arlow_trainer.checkpoint.layout import SaveMark, manifest_key
from arlow_trainer.checkpoint.posts import OtherRankFailed
from arlow_trainer.checkpoint.reader import list_checkpoints, read_manifest, verify
from arlow_trainer.checkpoint.writer import BackgroundWriter, SaveEvent
from arlow_trainer.config.errors import ArlowError, StoreError
from arlow_trainer.storage.store import Store
from support.checkpoints import SharedValues, files_of, new_attempt, save
from support.two_ranks import on_two_ranks
from support.waiting import wait_until

# Long enough for a busy machine, and short against COMMIT_TIMEOUT_S: a hang fails the test.
TIMEOUT_S = 60.0
RECORDS = json.dumps({"shard-1": {"size": 3, "sha256": "ab" * 32}})


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "run"))


def two_writers(
    store: Store, values: SharedValues, events: list[SaveEvent] | None = None
) -> list[BackgroundWriter]:
    attempt, on_event = new_attempt(), print if events is None else events.append
    return [
        BackgroundWriter(
            store, rank, 2, attempt, on_event, channel=values, commit_timeout_s=TIMEOUT_S
        )
        for rank in (0, 1)
    ]


def test_two_ranks_commit_together(local: Store) -> None:
    events: list[SaveEvent] = []
    writers = two_writers(local, SharedValues(), events)
    for step in (1, 2):
        for rank, writer in enumerate(writers):
            writer.submit(step, {f"shard-{rank}": bytes([rank]) * 10})
    for writer in writers:
        writer.wait()
        writer.close()
    assert read_manifest(local, 2).ranks == 2
    assert sorted(read_manifest(local, 2).files) == ["shard-0", "shard-1"]
    assert [event.bytes for event in events] == [20] * 4
    assert set(local.list("checkpoint-2")) == {
        "checkpoint-2/manifest.json",
        "checkpoint-2/shard-0",
        "checkpoint-2/shard-1",
    }


def test_the_channel_does_not_grow_with_the_run(local: Store) -> None:
    values = SharedValues()
    writers = two_writers(local, values)

    def broken(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    posted = []
    for step in range(1, 7):
        writers[0].submit(step, {"shard-0": b"0"})
        writers[1].submit(step, {"shard-1": broken if step == 3 else b"1"})
        for writer in writers:
            if step == 3:
                with pytest.raises(StoreError):
                    writer.wait()
            else:
                writer.wait()
        posted.append(sorted(key.partition("/")[2].partition("/")[2] for key in values.values))
    assert posted == [
        ["1/files/1", "1/outcome"],
        ["2/files/1", "2/outcome"],
        ["2/files/1", "2/outcome", "3/failure", "3/outcome"],
        ["4/files/1", "4/outcome"],
        ["5/files/1", "5/outcome"],
        ["6/files/1", "6/outcome"],
    ]
    for writer in writers:
        writer.close()


def test_rank_0_never_commits_with_a_stale_post(local: Store) -> None:
    """Neither a post of an earlier attempt nor one of an earlier save counts."""
    attempt, values = new_attempt(), SharedValues()
    mark = SaveMark(step=1, attempt=new_attempt(), started=datetime.now(UTC))
    local.write_bytes("checkpoint-1/save.json", mark.to_bytes())
    local.write_bytes("checkpoint-1/shard-1", b"old")
    # What a version before this one left in the store.
    local.write_bytes("checkpoint-1/parts/rank-1.json", RECORDS.encode())
    for stale in (f"{new_attempt()}/1", f"{attempt}/0"):
        values.post(f"checkpoint/{stale}/files/1", RECORDS)
    with BackgroundWriter(
        local, 0, 2, attempt, print, channel=values, commit_timeout_s=0.5
    ) as writer:
        for _ in range(2):
            writer.submit(1, {"shard-0": b"0"})
            with pytest.raises(StoreError, match="the files of rank 1 did not come within"):
                writer.wait()
            assert not local.exists(manifest_key(1))
            assert not local.exists("checkpoint-1/shard-0")


def test_a_rank_never_takes_an_earlier_commit_for_its_own(local: Store) -> None:
    save(local, 1, files={"shard-1": b"1"})
    attempt, values = new_attempt(), SharedValues()
    for stale in (f"{new_attempt()}/1", f"{attempt}/0"):
        values.post(f"checkpoint/{stale}/outcome", '{"state": "committed", "bytes": 1}')
    with BackgroundWriter(
        local, 1, 2, attempt, print, channel=values, commit_timeout_s=0.5
    ) as writer:
        writer.submit(1, {"shard-1": b"1"})
        with pytest.raises(StoreError, match="the commit by rank 0 did not come within"):
            writer.wait()
    # Rank 0 may commit it later.
    assert local.exists("checkpoint-1/shard-1")


def test_two_ranks_must_not_write_one_file(local: Store) -> None:
    writers = two_writers(local, SharedValues())
    for writer in writers:
        writer.submit(1, {"same": b"1"})
    with pytest.raises(ArlowError, match=r"Two ranks wrote same.*a bug in Arlow"):
        writers[0].wait()
    with pytest.raises(OtherRankFailed, match="Two ranks wrote same"):
        writers[1].wait()


def test_a_file_that_the_store_has_lost_is_not_committed(local: Store) -> None:
    """What rank 1 has posted and what the listing shows are compared."""

    class Forgetful(Store):
        def write_bytes(self, key: str, data: bytes) -> None:
            super().write_bytes(key, data[:-1] if key.endswith("shard-1") else data)

    writers = two_writers(Forgetful(local.url), SharedValues())
    for rank, writer in enumerate(writers):
        writer.submit(1, {f"shard-{rank}": b"12345"})
    for writer in writers:
        with pytest.raises(StoreError, match="shard-1 has 4 bytes after its upload of 5 bytes"):
            writer.wait()
        writer.close()
    assert local.list("checkpoint-1") == {}


def test_a_failure_on_one_rank_ends_the_save_on_all(local: Store) -> None:
    writers = two_writers(local, SharedValues())

    def broken(path: Path) -> None:
        raise OSError("the disk under the staging folder is gone")

    writers[0].submit(5, files_of(5))
    writers[1].submit(5, {"optimizer/rank-1": broken})
    with pytest.raises(ArlowError):
        writers[1].wait()
    with pytest.raises(OtherRankFailed, match=r"another rank's save failed\. Rank 1: .* is gone"):
        writers[0].wait()
    assert local.list("checkpoint-5") == {}

    # The next save of both is not held up by the last one's failure.
    writers[0].submit(6, files_of(6))
    writers[1].submit(6, {"optimizer/rank-1": b"1"})
    for writer in writers:
        writer.wait()
        writer.close()
    assert [info.step for info in list_checkpoints(local) if info.valid] == [6]


@pytest.mark.parametrize("rank", [0, 1])
def test_an_end_by_failure_does_not_wait_for_other_ranks(local: Store, rank: int) -> None:
    # It would wait for the other rank for COMMIT_TIMEOUT_S, half an hour.
    writer = BackgroundWriter(local, rank, 2, new_attempt(), print, channel=SharedValues())
    writer.submit(5, files_of(5))
    writer.close(abandon=True)
    with pytest.raises(StoreError, match="was given up"):
        writer.wait()
    assert not any(info.valid for info in list_checkpoints(local))


def test_files_are_deleted_where_a_commit_fails(local: Store) -> None:
    """Rank 1 has posted its files when rank 0 fails: both delete theirs."""
    values = SharedValues()
    writers = two_writers(local, values)
    posted = threading.Event()

    def late(path: Path) -> None:
        assert posted.wait(TIMEOUT_S)
        raise OSError(errno.ENOSPC, "No space left on device")

    writers[0].submit(5, {"a": b"uploaded before", "b": late})
    writers[1].submit(5, {"optimizer/rank-1": b"1"})
    wait_until(lambda: any(key.endswith("files/1") for key in list(values.values)))
    posted.set()
    with pytest.raises(StoreError, match="No space left"):
        writers[0].wait()
    with pytest.raises(OtherRankFailed, match=r"Rank 0: .*No space left"):
        writers[1].wait()
    assert local.list("checkpoint-5") == {}
    for writer in writers:
        writer.close()


@pytest.mark.parametrize("taken_back", [True, False])
def test_what_becomes_of_the_files_where_the_manifest_cannot_be_written(
    local: Store, taken_back: bool
) -> None:
    """They stay if the manifest may be in the store all the same, and go if it is taken back."""

    class Silent(Store):
        """Stores the manifest and then fails, as a server whose answer is lost."""

        failing = False

        def write_bytes(self, key: str, data: bytes) -> None:
            super().write_bytes(key, data)
            if key == manifest_key(5):
                type(self).failing = True
                raise StoreError("the server does not answer")

        def delete(self, key: str) -> None:
            if self.failing and not taken_back:
                raise StoreError("the server does not answer")
            super().delete(key)

    writers = two_writers(Silent(local.url), SharedValues())
    for rank, writer in enumerate(writers):
        writer.submit(5, {f"shard-{rank}": b"1"})
    with pytest.raises(StoreError, match="the server does not answer"):
        writers[0].wait()
    with pytest.raises(OtherRankFailed, match="Rank 0: the server does not answer"):
        writers[1].wait()
    for writer in writers:
        writer.close()
    if taken_back:
        assert local.list("checkpoint-5") == {}
    else:
        assert verify(local, 5) == []


@pytest.mark.parametrize("answered", [True, False])
def test_files_that_may_be_committed_stay(local: Store, answered: bool) -> None:
    """Rank 1 loses the channel, and rank 0 commits all the same: the checkpoint is whole."""

    class Lost(SharedValues):
        """Rank 1's connection, which breaks after its files are posted, or before it knows that."""

        broken = False

        def post(self, key: str, value: str) -> None:
            self._check()
            values.post(key, value)
            self.broken = key.endswith("files/1")
            if not answered:
                self._check()

        def has(self, key: str) -> bool:
            self._check()
            return values.has(key)

        def _check(self) -> None:
            if self.broken:
                raise ConnectionError("Connection reset by peer")

    values, attempt = SharedValues(), new_attempt()
    writers = [
        BackgroundWriter(
            local, rank, 2, attempt, print, channel=channel, commit_timeout_s=TIMEOUT_S
        )
        for rank, channel in enumerate((values, Lost()))
    ]
    writers[1].submit(5, {"optimizer/rank-1": b"1"})
    with pytest.raises(StoreError, match=r"key-value store does not answer \(Connection reset"):
        writers[1].wait()
    writers[0].submit(5, {"optimizer/rank-0": b"0"})
    writers[0].wait()
    assert verify(local, 5) == []
    for writer in writers:
        writer.close()


def test_real_ranks_report_the_cause_to_each_other(tmp_path: Path) -> None:
    """The disk of either of two ranks is full: both raise it, and rank 0 reports it."""
    found = on_two_ranks(play, str(tmp_path / "run"))
    for step, failing in ((10, 1), (20, 0)):
        cause = f"rank-{failing}: No space left on device"
        for rank in (0, 1):
            raised = found[rank][f"raised {step}"]
            assert cause in raised
            assert "Free some space" in raised
            assert "another rank" not in raised
            reported = found[rank][f"reported {step}"]
            assert cause in reported
            assert (f"Rank {failing}: " in reported) is (rank != failing)
            assert f"checkpoint-{step} is not saved" in found[rank]["log"]
    assert list_checkpoints(Store(str(tmp_path / "run"))) == []
