"""Real ranks, kills and a dying server over real S3."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from arlow_trainer.checkpoint.reader import list_checkpoints, newest_valid, read_manifest, verify
from arlow_trainer.config.errors import StoreError
from arlow_trainer.storage import retries
from arlow_trainer.storage.store import Store
from support.checkpoints import (
    files_of,
    flip_byte,
    new_attempt,
    only_rank,
    save,
    serve_values,
    served_values,
)
from support.s3_server import S3, S3Unavailable, running_s3
from support.waiting import wait_until

TIMEOUT_S = 60.0
RANK = """
import sys
from support.checkpoints import *
url, rank, attempt, port = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
shard = bytes([rank]) * 200_000
channel = served_values(port)
with BackgroundWriter(Store(url), rank, 2, attempt, print, channel=channel) as writer:
    for step in (1, 2, 3):
        writer.submit(step, {f"optimizer/shard-{rank}": lambda path: path.write_bytes(shard)})
    writer.wait()
"""


@pytest.fixture
def port() -> Iterator[int]:
    """Where the ranks' key-value store is served."""
    with serve_values() as port:
        yield port


def start_rank(s3: S3, url: str, rank: int, attempt: str, port: int) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", RANK, url, str(rank), attempt, str(port)],
        env={**os.environ, **s3.environment, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_commit_together(s3: S3, s3_store: Store, port: int) -> None:
    attempt = new_attempt()
    ranks = [start_rank(s3, s3_store.url, rank, attempt, port) for rank in (0, 1)]
    for process in ranks:
        process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0
    assert [(info.step, info.valid) for info in list_checkpoints(s3_store)] == [
        (1, True),
        (2, True),
        (3, True),
    ]
    for step in (1, 2, 3):
        assert verify(s3_store, step) == []
        assert sorted(read_manifest(s3_store, step).files) == [
            "optimizer/shard-0",
            "optimizer/shard-1",
        ]


def test_a_rank_that_was_killed_leaves_no_manifest(s3: S3, s3_store: Store, port: int) -> None:
    attempt = new_attempt()
    lonely = start_rank(s3, s3_store.url, 1, attempt, port)
    values = served_values(port)
    wait_until(lambda: values.has(f"checkpoint/{attempt}/1/files/1"), TIMEOUT_S)
    lonely.kill()
    lonely.communicate(timeout=TIMEOUT_S)
    assert s3_store.exists("checkpoint-1/optimizer/shard-1")
    assert newest_valid(s3_store) is None
    # The next attempt is not killed, and takes nothing of the first one's for its own.
    attempt = new_attempt()
    for process in [start_rank(s3, s3_store.url, rank, attempt, port) for rank in (0, 1)]:
        process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0
    assert read_manifest(s3_store, 1).attempt == attempt
    assert verify(s3_store, 1) == []


def test_a_server_that_dies_in_mid_upload_costs_only_that_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "MAX_MINUTES", 0.05)
    directory = tmp_path / "s3"
    run = f"{uuid.uuid4().hex}/run"
    try:
        with running_s3(directory) as s3:
            store = Store(s3.url(run), s3.options)
            save(store, 1)

            def large(path: Path) -> None:
                with path.open("wb") as file:
                    file.truncate(120 * 2**20)
                dies.start()

            def die() -> None:
                before, deadline = _bytes_in(directory), time.monotonic() + TIMEOUT_S
                while _bytes_in(directory) < before + 8 * 2**20 and time.monotonic() < deadline:
                    time.sleep(0.005)
                s3.kill()

            # The server dies when it has got a part of the file, however fast that comes.
            dies = threading.Thread(target=die, daemon=True)
            with only_rank(store) as writer:
                writer.submit(2, {"a": b"uploaded before", "large": large})
                with pytest.raises(
                    StoreError, match=rf"s3://runs/{run}/checkpoint-2/large"
                ) as caught:
                    writer.wait()
            assert s3.endpoint.removeprefix("http://") in str(caught.value)
            assert "Check that the server runs" in str(caught.value)
    except S3Unavailable as error:
        pytest.skip(str(error))
    with running_s3(directory) as again:
        store = Store(again.url(run), again.options)
        assert [(info.step, info.valid) for info in list_checkpoints(store)] in (
            [(1, True)],
            [(1, True), (2, False)],
        )
        newest = newest_valid(store)
        assert newest is not None
        assert newest.step == 1
        save(store, 2)
        assert verify(store, 2) == []


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_blocks * 512
    return total


def test_a_server_that_pauses_costs_nothing(tmp_path: Path) -> None:
    """Transient errors are retried: the server is away for a second or two during a save."""
    import signal

    try:
        with running_s3(tmp_path / "s3") as s3:
            store = Store(s3.url("pause/run"), s3.options)
            store.check_writable()
            s3.process.send_signal(signal.SIGSTOP)
            threading.Timer(2.0, s3.process.send_signal, [signal.SIGCONT]).start()
            save(store, 1, files=files_of(1))
            assert verify(store, 1) == []
    except S3Unavailable as error:
        pytest.skip(str(error))


def test_a_byte_flipped_in_the_bucket_is_named(s3_store: Store) -> None:
    save(s3_store, 1, 2)
    flip_byte(s3_store, "checkpoint-2/trainer_state.json")
    assert [problem.file for problem in verify(s3_store, 2)] == ["trainer_state.json"]
    newest = newest_valid(s3_store)
    assert newest is not None
    assert newest.step == 1
