"""An operation on a store ends in time though its server accepts connections and never answers."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fsspec.asyn import get_loop

from arlow_trainer.config.errors import StoreError
from arlow_trainer.storage.grace import Grace
from arlow_trainer.storage.store import Store
from arlow_trainer.storage.timeouts import Deadline, StoreTimeout
from support.checkpoints import local_file
from support.silent_server import silent_server


@pytest.fixture
def silent() -> Iterator[str]:
    with silent_server() as address:
        yield address


@pytest.mark.parametrize(
    "operation",
    [
        lambda store, folder: store.check_writable(),
        lambda store, folder: store.list(),
        lambda store, folder: store.read_bytes("a"),
        lambda store, folder: store.delete_tree("a"),
        lambda store, folder: store.put_file(local_file(folder / "large", 40 * 2**20), "a"),
        lambda store, folder: store.get_file("a", folder / "back"),
    ],
    ids=["check", "list", "read", "delete", "put", "get"],
)
def test_a_silent_server_is_named(
    silent: str, tmp_path: Path, operation: Callable[[Store, Path], object]
) -> None:
    options = {"endpoint_url": silent, "key": "k", "secret": "s"}
    store = Store("s3://runs/x", options, timeout_s=1.0)
    began = time.monotonic()
    with pytest.raises(
        StoreError, match=r"s3://runs/x.*has not answered for .* s\. .*AWS_ENDPOINT"
    ):
        operation(store, tmp_path)
    # One read alone would be tried for a minute and a half by the client itself.
    assert time.monotonic() - began < 60


def test_what_makes_progress_may_take_longer() -> None:
    deadline = Deadline(2.0)

    async def work() -> str:
        for _ in range(15):
            await asyncio.sleep(0.2)
            deadline.callback.relative_update(1)
        return "done"

    assert deadline.wait(work(), get_loop()) == "done"


def test_what_makes_no_progress_is_cancelled() -> None:
    cancelled = threading.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            cancelled.set()

    with pytest.raises(StoreTimeout, match="has not answered for"):
        Deadline(0.2).wait(work(), get_loop())
    assert cancelled.wait(60)


def test_what_is_given_up_ends_soon(silent: str, tmp_path: Path) -> None:
    given_up = threading.Event()
    options = {"endpoint_url": silent, "key": "k", "secret": "s"}
    store = Store("s3://runs/x", options).persistent(given_up)
    threading.Timer(0.5, given_up.set).start()
    began = time.monotonic()
    with pytest.raises(StoreError, match="had not answered when the run had to end"):
        store.put_file(local_file(tmp_path / "large", 40 * 2**20), "a")
    assert time.monotonic() - began < 20


def test_a_stop_ends_an_operation_soon_and_the_next_has_its_own_time(silent: str) -> None:
    grace = Grace(180.0)
    grace.loading = True
    options = {"endpoint_url": silent, "key": "k", "secret": "s"}
    store = Store("s3://runs/x", options).stoppable(grace.within)
    threading.Timer(0.5, grace.begin).start()
    for at_least, operation in ((2.4, store.check_writable), (1.9, lambda: store.delete("a"))):
        began = time.monotonic()
        with pytest.raises(StoreError, match="had not answered when the run had to end"):
            operation()
        assert at_least < time.monotonic() - began < 20


def test_retries_of_minutes_end_when_given_up() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # nothing listens there: every connection is refused
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        given_up = threading.Event()
        store = Store("s3://runs/x", {"endpoint_url": address, "key": "k", "secret": "s"})
        threading.Timer(1.0, given_up.set).start()
        with pytest.raises(StoreError, match="Check that the server runs"):
            store.persistent(given_up).write_bytes("a", b"")
    assert given_up.is_set(), "it was tried until then"


def test_a_failure_passes_through() -> None:
    async def work() -> None:
        raise FileNotFoundError("x")

    with pytest.raises(FileNotFoundError):
        Deadline(60.0).wait(work(), get_loop())
