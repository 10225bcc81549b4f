"""Credentials that end while a store is used, against a real S3 server (SeaweedFS).

Real: its temporary keys, which its STS issues and which end, its keys that are replaced while it
runs, and everything in between. Made here: who writes the new keys to their file (in a cluster the
kubelet or a side process), and the service that exchanges a web identity token for keys.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from arlow_trainer.checkpoint.reader import list_checkpoints, verify
from arlow_trainer.config.errors import CredentialsError, ExitCode
from arlow_trainer.data.decode import read_remote_sample
from arlow_trainer.storage.connection import connect, reconnect
from arlow_trainer.storage.remote_files import read_file
from arlow_trainer.storage.store import Store
from support.checkpoints import local_file, save
from support.s3_server import S3, S3Unavailable, running_s3, write_keys
from support.sts_exchange import sts_exchange
from support.waiting import wait_until

SESSION_S = 5


@pytest.fixture(scope="module")
def sts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A server of its own, whose temporary keys end after five seconds."""
    try:
        with running_s3(tmp_path_factory.mktemp("sts"), session_s=SESSION_S) as server:
            yield server
    except S3Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def keys_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where an AWS client looks for keys: this file alone."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path / "credentials"


def with_lasting_keys(store: Store, server: S3) -> Store:
    return Store(store.url, server.options)


def test_keys_that_are_renewed_in_their_file_are_read_again(sts: S3, keys_file: Path) -> None:
    write_keys(keys_file, sts.session_keys())
    store = Store(sts.url(f"{uuid.uuid4().hex}/run"), {"endpoint_url": sts.endpoint})
    ends = threading.Event()

    def renew() -> None:
        while not ends.wait(1.0):
            write_keys(keys_file, sts.session_keys())

    renewing = threading.Thread(target=renew)
    renewing.start()
    first, started = store._access.connection.file_system(), time.monotonic()
    try:
        while time.monotonic() - started < 2.5 * SESSION_S:
            save(store, int(1000 * (time.monotonic() - started)) + 1)
    finally:
        ends.set()
        renewing.join()
    assert store._access.connection.file_system() is not first
    checkpoints = list_checkpoints(with_lasting_keys(store, sts))
    assert len(checkpoints) > 2
    assert all(info.valid for info in checkpoints)


def test_keys_that_end_are_called_expired_and_the_checkpoint_before_is_kept(
    sts: S3, keys_file: Path
) -> None:
    write_keys(keys_file, sts.session_keys())
    store = Store(sts.url(f"{uuid.uuid4().hex}/run"), {"endpoint_url": sts.endpoint})
    save(store, 1)
    time.sleep(SESSION_S + 1)
    with pytest.raises(CredentialsError, match="session credentials expired") as caught:
        save(store, 2)
    assert caught.value.exit_code is ExitCode.CREDENTIALS
    assert "AWS_ACCESS_KEY_ID" in str(caught.value)
    kept = with_lasting_keys(store, sts)
    assert [info.step for info in list_checkpoints(kept) if info.valid] == [1]
    assert verify(kept, 1) == []


def test_a_key_that_is_replaced_in_mid_upload_costs_nothing(
    keys_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts that the old key has uploaded are given up, and the file is uploaded again."""
    monkeypatch.setattr("arlow_trainer.storage.store.S3_PART", 5 * 2**20)
    folder = tmp_path / "s3"
    try:
        with running_s3(folder) as s3:
            own = {"aws_access_key_id": s3.access_key, "aws_secret_access_key": s3.secret_key}
            write_keys(keys_file, own)
            store = Store(s3.url("upload/run"), {"endpoint_url": s3.endpoint})
            store.check_writable()
            before, client = _bytes_in(folder), store._access.connection.file_system()

            def replace() -> None:
                wait_until(lambda: _bytes_in(folder) > before + 8 * 2**20)
                write_keys(
                    keys_file, {"aws_access_key_id": "new", "aws_secret_access_key": "new-secret"}
                )
                s3.change_key("new", "new-secret")

            replacing = threading.Thread(target=replace)
            replacing.start()
            # Larger than what is uploaded before the server takes notice.
            source = local_file(tmp_path / "large", 400 * 2**20)
            store.put_file(source, "large")
            replacing.join()
            assert store._access.connection.file_system() is not client
            assert store.size("large") == 400 * 2**20
    except S3Unavailable as error:
        pytest.skip(str(error))


def test_data_is_read_with_renewed_keys(
    sts: S3, keys_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconnected: list[object] = []

    def counted(fs: object) -> object:
        reconnected.append(fs)
        return reconnect(fs)

    monkeypatch.setattr("arlow_trainer.storage.remote_files.reconnect", counted)
    write_keys(keys_file, sts.session_keys())
    url = sts.url(f"{uuid.uuid4().hex}/images")
    Store(url, {"endpoint_url": sts.endpoint}).write_bytes("a.png", b"image")
    fs, path = connect(url, endpoint_url=sts.endpoint)
    assert read_file(fs, f"{path}/a.png") == b"image"
    for ended in (1, 2):
        time.sleep(SESSION_S + 1)
        write_keys(keys_file, sts.session_keys())
        assert all(read_file(fs, f"{path}/a.png") == b"image" for _ in range(3))
        assert len(reconnected) == ended, "not at every read"
    # Others get the new client, too.
    newer, _ = connect(url, endpoint_url=sts.endpoint)
    assert newer is not fs
    assert newer.cat_file(f"{path}/a.png") == b"image"
    # SeaweedFS calls them unknown keys; that they were valid says that they have ended.
    time.sleep(SESSION_S + 1)
    with pytest.raises(CredentialsError, match=r"a\.png: session credentials expired") as caught:
        read_remote_sample("a.png", fs, f"{path}/a.png")
    assert caught.value.exit_code is ExitCode.CREDENTIALS


def test_a_rotated_web_identity_token_is_read_again(
    sts: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("token-1")
    store = Store(sts.url(f"{uuid.uuid4().hex}/run"), {"endpoint_url": sts.endpoint})
    with sts_exchange(sts, SESSION_S, valid="token-1") as exchange:
        for name, value in exchange.environment(str(token)).items():
            monkeypatch.setenv(name, value)
        save(store, 1)
        time.sleep(SESSION_S + 1)
        token.write_text("token-2")
        exchange.valid = "token-2"
        save(store, 2)
        assert set(exchange.seen) == {"token-1", "token-2"}
        time.sleep(SESSION_S + 1)
        exchange.valid = "token-3"
        with pytest.raises(CredentialsError, match="session credentials expired"):
            save(store, 3)
    kept = with_lasting_keys(store, sts)
    assert [info.step for info in list_checkpoints(kept) if info.valid] == [1, 2]


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*.dat"))
