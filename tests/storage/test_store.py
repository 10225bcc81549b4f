"""The store against a real S3 server, local files and memory."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from arlow_trainer.config.errors import ConfigError, CredentialsError, LeaseLost, StoreError
from arlow_trainer.storage.errors import MissingObject
from arlow_trainer.storage.store import Store
from support.checkpoints import local_file
from support.processes import in_fork
from support.s3_server import S3


def test_bytes_come_back(store: Store) -> None:
    assert not store.exists("a/b.json")
    store.write_bytes("a/b.json", b"one")
    store.write_bytes("a/b.json", b"second")
    assert store.read_bytes("a/b.json") == b"second"
    assert store.exists("a/b.json")
    assert not store.exists("a")
    assert store.size("a/b.json") == 6
    assert store.digest("a/b.json") == (6, hashlib.sha256(b"second").hexdigest())


def test_an_empty_object_is_an_object(store: Store) -> None:
    store.write_bytes("empty", b"")
    assert store.list() == {"empty": 0}
    assert store.digest("empty") == (0, hashlib.sha256(b"").hexdigest())


def test_an_object_is_extended(store: Store) -> None:
    store.extend("a/log", b"one", known=0)
    store.extend("a/log", b"one two", known=3)
    assert store.read_bytes("a/log") == b"one two"
    # A try that failed half-way, and an object that others removed.
    store.write_bytes("a/log", b"one two thr")
    store.extend("a/log", b"one two three", known=7)
    assert store.read_bytes("a/log") == b"one two three"
    store.delete("a/log")
    store.extend("a/log", b"one two three four", known=13)
    assert store.read_bytes("a/log") == b"one two three four"


def test_readers_of_a_local_file_see_it_grow(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.extend("log", b"one", known=0)
    with (tmp_path / "log").open("rb") as reader:
        assert reader.read() == b"one"
        store.extend("log", b"one two", known=3)
        assert reader.read() == b" two"


@pytest.mark.parametrize("move", [False, True])
def test_files_come_back(store: Store, tmp_path: Path, move: bool) -> None:
    source = local_file(tmp_path / "source", 300_000)
    content = source.read_bytes()
    store.put_file(source, "deep/down/file.bin", move=move)
    store.get_file("deep/down/file.bin", tmp_path / "new" / "back")
    assert (tmp_path / "new" / "back").read_bytes() == content
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["back"]
    assert store.digest("deep/down/file.bin") == (300_000, hashlib.sha256(content).hexdigest())
    if not move:
        assert source.read_bytes() == content


def test_a_file_of_several_parts_comes_back(s3_store: Store, tmp_path: Path) -> None:
    size = 110 * 2**20
    source = local_file(tmp_path / "large", size)
    s3_store.put_file(source, "large")
    with source.open("rb") as file:
        expected = hashlib.file_digest(file, "sha256").hexdigest()
    assert s3_store.digest("large") == (size, expected)
    s3_store.get_file("large", tmp_path / "back")
    with (tmp_path / "back").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == expected


def test_listings_are_relative_and_fresh(store: Store) -> None:
    other = Store(store.url, store._access.connection._options)
    assert store.list() == {}
    assert store.list_dirs() == []
    assert store.list_dirs("none") == []
    other.write_bytes("checkpoint-1/manifest.json", b"12")
    other.write_bytes("checkpoint-10/a/b", b"123")
    other.write_bytes("top", b"1")
    assert store.list() == {"checkpoint-1/manifest.json": 2, "checkpoint-10/a/b": 3, "top": 1}
    assert store.list("checkpoint-1") == {"checkpoint-1/manifest.json": 2}
    assert store.list_dirs() == ["checkpoint-1", "checkpoint-10"]
    assert store.list_files() == ["top"]
    other.delete("top")
    assert "top" not in store.list()
    assert not store.exists("top")


def test_delete_removes_what_exists_and_ignores_what_does_not(store: Store) -> None:
    store.delete("none")
    store.delete_tree("none")
    store.write_bytes("a/b/c", b"1")
    store.write_bytes("a/d", b"1")
    store.write_bytes("ab", b"1")
    store.delete("a/d")
    assert store.list() == {"a/b/c": 1, "ab": 1}
    store.delete_tree("a")
    assert store.list() == {"ab": 1}


def test_a_child_is_a_folder(store: Store) -> None:
    child = store.child("checkpoint-5")
    child.write_bytes("x", b"1")
    assert store.list() == {"checkpoint-5/x": 1}
    assert child.list() == {"x": 1}
    assert child.url == store.url_of("checkpoint-5")
    assert child.url_of("x") == store.url_of("checkpoint-5/x")


@pytest.mark.parametrize("key", ["", "/abs", "../up", "a/../b", "a//b", "./a", "a/"])
def test_keys_stay_inside(store: Store, key: str) -> None:
    with pytest.raises(ValueError, match="relative path"):
        store.write_bytes(key, b"")


def test_what_is_missing_is_named(store: Store, tmp_path: Path) -> None:
    for read in (store.read_bytes, store.size, store.digest):
        with pytest.raises(MissingObject, match="a/none: there is no such object"):
            read("a/none")
    with pytest.raises(MissingObject, match="a/none"):
        store.get_file("a/none", tmp_path / "x")
    assert list(tmp_path.glob("*x*")) == []


def test_checking_that_it_is_writable_leaves_nothing(store: Store) -> None:
    store.check_writable()
    assert store.list() == {}


def test_a_forked_process_uses_the_store(store: Store) -> None:
    store.write_bytes("a", b"before")
    assert in_fork(lambda: store.read_bytes("a")) == "b'before'"
    assert store.read_bytes("a") == b"before"


def test_threads_share_a_store(store: Store) -> None:
    def work(number: int) -> None:
        for i in range(5):
            store.write_bytes(f"{number}/{i}", bytes([number]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.list()) == 20


def test_the_environment_is_enough(s3: S3) -> None:
    script = (
        "import os, sys, threading\n"
        "from arlow_trainer.storage.store import Store\n"
        "store = Store(sys.argv[1])\n"
        "thread = threading.Thread(target=store.write_bytes, args=('a', b'1'))\n"
        "thread.start(); thread.join()\n"
        "print(store.read_bytes('a'))\n"
        # A worker that was forked while connections were open must end as well.
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    sys.exit(0 if store.read_bytes('a') == b'1' else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    started = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", script, s3.url("environment/run")],
        env={**_without_aws(), **s3.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "b'1'\n", "")
    assert time.monotonic() - started < 30


def test_a_wrong_secret_is_a_matter_of_credentials(s3: S3) -> None:
    store = Store(s3.url("x/run"), {**s3.options, "secret": "wrong"})
    for operation in (store.check_writable, store.list, lambda: store.exists("a")):
        with pytest.raises(CredentialsError, match=r"s3://runs/x/run.*AWS_SECRET_ACCESS_KEY"):
            operation()


def test_an_unknown_key_is_a_matter_of_credentials(s3: S3) -> None:
    store = Store(s3.url("x/run"), {**s3.options, "key": "unknown"})
    with pytest.raises(CredentialsError, match="does not exist in our records"):
        store.check_writable()


def test_no_credentials_are_a_matter_of_credentials(
    s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = Store(s3.url("x/run"), {"endpoint_url": s3.endpoint})
    with pytest.raises(CredentialsError, match=r"Unable to locate credentials.*AWS_ACCESS_KEY_ID"):
        store.check_writable()


def test_a_missing_bucket_is_named(s3: S3) -> None:
    store = Store("s3://nowhere/run", s3.options)
    operations = (
        store.check_writable,
        store.list,
        store.list_dirs,
        lambda: store.read_bytes("a"),
        lambda: store.exists("a"),
    )
    for operation in operations:
        with pytest.raises(StoreError, match=r"s3://nowhere/run.*Create the bucket") as caught:
            operation()
        assert not isinstance(caught.value, MissingObject)


def test_a_server_that_is_not_there_is_named() -> None:
    options = {"endpoint_url": "http://127.0.0.1:9", "key": "k", "secret": "s"}
    started = time.monotonic()
    with pytest.raises(StoreError, match=r"s3://runs/x.*127\.0\.0\.1:9.*AWS_ENDPOINT_URL"):
        Store("s3://runs/x", options).check_writable()
    assert time.monotonic() - started < 60


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/x", "unknown scheme 'ftp'"),
        ("s3://", "names no bucket"),
        ("", "names no folder"),
        ("s3://KEY:SECRET@bucket/run", "holds credentials"),
    ],
)
def test_a_wrong_url_is_refused(url: str, message: str) -> None:
    """As the same mistake in a manifest is."""
    with pytest.raises(ConfigError, match=message):
        Store(url)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("gs://bucket/run", {"token": "anon"}),
        ("az://container/run", {"account_name": "a", "account_key": "a2V5"}),
        ("abfs://container/run", {"account_name": "a", "account_key": "a2V5"}),
    ],
)
def test_the_other_clouds_open_without_a_network(url: str, options: dict[str, str]) -> None:
    store = Store(url, options)
    file_system = store._access.connection.file_system()
    path = file_system._strip_protocol(store.url_of("a/b"))
    assert path in ("bucket/run/a/b", "container/run/a/b")


def test_azure_without_an_account_is_a_matter_of_credentials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    with pytest.raises(CredentialsError, match="AZURE_STORAGE_ACCOUNT_NAME"):
        Store("az://container/run").check_writable()


def _without_aws() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}


def test_a_store_whose_writes_are_forbidden_forbids_them_to_its_copies(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "run"))
    copies = [store.persistent(threading.Event()), store.child("pictures")]
    store.forbid_writes(LeaseLost("taken over"))
    for each in (store, *copies):
        with pytest.raises(LeaseLost, match="taken over"):
            each.write_bytes("a", b"")
    assert not (tmp_path / "run").exists()
