"""Every path is literal, in every operation and every store: what is listed is read and deleted.

Local files, memory and S3 (SeaweedFS) are real; the clients of GCS and Azure are, and talk to
in-process servers of their HTTP protocols.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arlow_trainer.config.errors import StoreError
from arlow_trainer.storage.connection import connect
from arlow_trainer.storage.remote_files import list_files, read_file
from arlow_trainer.storage.store import Store
from support.azure_server import azure_server
from support.google_server import google_server
from support.s3_server import S3

NAMES = [
    "exp[1]",
    "exp[!a]",
    "exp*",
    "exp?",
    "**",
    "[",
    "a?versionId=1",
    "a?versionid=1",
    "a?generation=1",
    "a#1",
    "a?b#c",
    "a#",
    "a?",
    "100%",
    "%2F",
    "%20",
    "a b",
    " a",
    "b ",
    " ",
    "a+b",
    "a&b=c",
    "a::b",
    "s3:c",
    "{a,b}",
    "ü-図-🜁",
    "a\tb",
    "'\"`",
    "~",
]
# What each of these, taken for a pattern or a version, would reach.
NEIGHBOURS = ["exp1", "exp", "expa", "a", "b"]


@pytest.fixture(params=["s3", "local", "memory", "gs", "az"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """A new, empty URL in every kind of store, and the options to reach it."""
    folder = uuid.uuid4().hex
    if request.param == "s3":
        s3: S3 = request.getfixturevalue("s3")
        yield s3.url(folder), s3.options
    elif request.param == "local":
        yield str(tmp_path / "runs"), {}
    elif request.param == "memory":
        yield f"memory://{folder}", {}
    else:
        with google_server() if request.param == "gs" else azure_server() as options:
            yield f"{request.param}://runs/{folder}", options


def use_everything(store: Store, key: str, folder: Path) -> None:
    """Writes, finds, reads and deletes one object by every operation."""
    store.write_bytes(key, b"one")
    assert store.write_if_unchanged(key, b"again", None) is None
    assert store.exists(key)
    assert store.size(key) == 3
    assert store.digest(key)[0] == 3
    assert store.read_bytes(key) == b"one"
    local = folder / "local"
    store.get_file(key, local)
    local.write_bytes(local.read_bytes() + b"two")
    store.put_file(local, key)
    assert store.read_bytes(key) == b"onetwo"
    store.delete(key)
    assert not store.exists(key)
    assert store.write_if_unchanged(key, b"new", None) is not None


def test_every_operation_on_a_name_reaches_that_name_alone(
    bucket: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    url, options = bucket
    store = Store(url, options)
    others = {f"{folder}/{name}": 5 for folder in NEIGHBOURS for name in NEIGHBOURS}
    for key in others:
        store.write_bytes(key, b"other")
    for name, inner in zip(NAMES, NAMES[7:] + NAMES[:7], strict=True):
        run = Store(f"{url}/{name}", options)
        use_everything(run, inner, tmp_path)
        assert run.list() == {inner: 3}
        assert run.list_files() == [inner]
        run.write_bytes("checkpoint-1/a", b"1")
        run.write_bytes("checkpoint-10/a", b"1")
        assert run.list("checkpoint-1") == {"checkpoint-1/a": 1}
        assert run.list_dirs() == ["checkpoint-1", "checkpoint-10"]
        run.delete_tree("checkpoint-1")
        assert run.list("checkpoint-1") == {}
        assert run.list("checkpoint-10") == {"checkpoint-10/a": 1}
        assert name in store.list_dirs()
        store.delete_tree(name)
        assert run.list() == {}
        assert store.list() == others


def test_a_listed_file_of_a_folder_can_be_read(bucket: tuple[str, dict[str, Any]]) -> None:
    url, options = bucket
    for folder in ["data[1]", "data?versionId=1", "data#1 100%"]:
        store = Store(f"{url}/{folder}", options)
        for name in NAMES:
            store.write_bytes(f"{name}/{name}.jpg", name.encode())
        fs, root = connect(f"{url}/{folder}", **options)
        found = list_files(fs, root)
        assert found == sorted(f"{name}/{name}.jpg" for name in NAMES)
        for file in found:
            assert read_file(fs, f"{root}/{file}").decode() == file.split("/")[0]


@pytest.mark.parametrize("url", ["{}//run", "{}/run//", "{}/a//b///run"])
def test_empty_parts_of_a_url_are_dropped(bucket: tuple[str, dict[str, Any]], url: str) -> None:
    base, options = bucket
    store = Store(url.format(base), options)
    store.write_bytes("checkpoint-1/a", b"1")
    assert store.list() == {"checkpoint-1/a": 1}
    assert store.list_dirs() == ["checkpoint-1"]
    plain = Store(url.format(base).replace("///", "/").replace("//", "/").replace(":/", "://"))
    assert plain.url.rstrip("/") == store.url
    store.delete_tree("checkpoint-1")
    assert store.list() == {}


@pytest.fixture(params=["s3", "gs", "az"])
def objects(request: pytest.FixtureRequest) -> Iterator[tuple[str, dict[str, Any]]]:
    """A bucket's URL in every kind of object store, and the options to reach it."""
    if request.param == "s3":
        s3: S3 = request.getfixturevalue("s3")
        yield f"s3://{s3.bucket}", s3.options
    else:
        with google_server() if request.param == "gs" else azure_server() as options:
            yield f"{request.param}://runs", options


def test_a_folder_of_data_below_empty_parts(objects: tuple[str, dict[str, Any]]) -> None:
    url, options = objects
    fs, root = connect(f"{url}//{uuid.uuid4().hex}", **options)
    for file in ("a.jpg", "sub//b.jpg", "c[1].jpg"):
        fs.pipe_file(f"{root}/{file}", file.encode())
    found = list_files(fs, root)
    # SeaweedFS lists without the empty parts what it keeps with them.
    assert [file.replace("//", "/") for file in found] == ["a.jpg", "c[1].jpg", "sub/b.jpg"]
    assert [read_file(fs, f"{root}/{file}") for file in found] == [
        b"a.jpg",
        b"c[1].jpg",
        b"sub//b.jpg",
    ]


def test_the_marker_of_a_folder_is_no_object_of_it(objects: tuple[str, dict[str, Any]]) -> None:
    url, options = objects
    store = Store(f"{url}/{uuid.uuid4().hex}", options)
    store.write_bytes("checkpoint-5/a", b"1")
    fs = store._access.connection.file_system()
    fs.pipe_file(f"{fs._strip_protocol(store.url)}/checkpoint-5/", b"")
    assert store.list() == {"checkpoint-5/a": 1}
    assert store.list_files("checkpoint-5") == ["a"]
    store.delete_tree("checkpoint-5")
    assert store.list() == {}


@pytest.mark.parametrize("scheme", ["memory", "gs", "az"])
def test_what_is_listed_is_deleted_whatever_its_name(scheme: str) -> None:
    servers = {"gs": google_server, "az": azure_server, "memory": lambda: nullcontext({})}
    with servers[scheme]() as options:
        store = Store(f"{scheme}://{uuid.uuid4().hex}/run", options)
        fs = store._access.connection.file_system()
        root = fs._strip_protocol(store.url)
        names = ["a//b", "c", " d ", "e/", "f//"] + ([] if scheme == "az" else ["..", "a/./b"])
        for name in names:
            fs.pipe_file(f"{root}/checkpoint-1/{name}", b"1")
        listed = store.list("checkpoint-1")
        # What ends with a slash marks a folder, except in memory, which drops the slash.
        assert len(listed) == len(names) - (0 if scheme == "memory" else 2)
        store.delete_all(listed)
        assert store.list() == {}


@pytest.mark.parametrize("name", ["..", ".", "../b", "a/../b", "a/."])
def test_the_client_of_azure_reaches_no_other_object_by_dots(name: str) -> None:
    """Its HTTP client resolves them before it asks."""
    with azure_server() as options:
        Store("az://runs", options).write_bytes("run/b", b"1")
        store = Store("az://runs/run/checkpoint-1", options)
        with pytest.raises(StoreError, match="no parts of dots alone"):
            store.delete_all([name])
        assert Store("az://runs", options).list() == {"run/b": 1}


part = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/"), min_size=1, max_size=8
).filter(lambda text: text not in (".", "..") and not text.endswith(".tmp"))
special = st.text("[]*?#%:!{}~ a1", min_size=1, max_size=8)
keys = st.lists(part | special, min_size=1, max_size=3).map("/".join)


@pytest.mark.parametrize("scheme", ["local", "memory"])
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(folders=st.lists(part | special, min_size=2, max_size=3, unique=True), key=keys)
def test_any_name(tmp_path: Path, scheme: str, folders: list[str], key: str) -> None:
    base = (
        f"memory://{uuid.uuid4().hex}" if scheme == "memory" else str(tmp_path / str(uuid.uuid4()))
    )
    runs = [Store(f"{base}/{folder}") for folder in folders]
    for number, run in enumerate(runs):
        run.write_bytes(f"checkpoint-1/{key}", bytes(number + 1))
    for number, run in enumerate(runs):
        assert run.list() == {f"checkpoint-1/{key}": number + 1}
        assert run.list("checkpoint-1") == run.list()
        assert run.read_bytes(f"checkpoint-1/{key}") == bytes(number + 1)
    runs[0].delete_tree("checkpoint-1")
    assert runs[0].list() == {}
    for run in runs[1:]:
        run.delete(f"checkpoint-1/{key}")
        assert run.list() == {}


# GCS and Azure, of which there is no server to install: what their clients are asked for


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("base", ["gs://bucket/runs", "gcs://bucket//runs"])
def test_the_object_that_the_client_of_gcs_asks_for(base: str, name: str) -> None:
    fs, path = connect(f"{base}/{name}/a", token="anon")
    key = f"{base.partition('bucket/')[2]}/{name}/a"
    assert not fs.version_aware
    assert fs.split_path(path) == ("bucket", key, None)
    assert f"/o/{quote(key, safe='')}?alt=media" in fs.url(path)


AZURE = {"account_name": "account", "account_key": "a2V5"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "base",
    [
        "az://bucket/runs",
        "abfs://bucket/runs",
        "abfs://bucket@account.dfs.core.windows.net/runs",
        "az://account.blob.core.windows.net/bucket/runs",
        "az://bucket//runs",
    ],
)
def test_the_object_that_the_client_of_azure_asks_for(base: str, name: str) -> None:
    fs, path = connect(f"{base}/{name}/a", **AZURE)
    key = f"/runs/{name}/a" if "//runs" in base else f"runs/{name}/a"
    assert not fs.version_aware
    assert fs.account_name == "account"
    assert fs.split_path(path) == ("bucket", key, None)
    client = fs.service_client.get_blob_client("bucket", key)
    assert client.url.endswith(f"/bucket/{quote(key, safe='~/')}")


@pytest.mark.parametrize("name", NAMES)
def test_the_object_that_the_client_of_s3_asks_for(name: str) -> None:
    arn = "arn:aws:s3:eu-west-1:123456789012:accesspoint/point"
    for bucket in ("bucket", arn):
        fs, path = connect(f"s3://{bucket}/runs/{name}/a", key="k", secret="s")
        assert not fs.version_aware
        assert fs.split_path(path) == (bucket, f"runs/{name}/a", None)
