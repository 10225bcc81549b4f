"""Uploads side by side: how many, with how much space, and what a failure leaves."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from arlow_trainer.checkpoint import uploads
from arlow_trainer.checkpoint.reader import list_checkpoints, verify
from arlow_trainer.config.errors import StoreError
from arlow_trainer.storage.store import Store
from support.checkpoints import only_rank, save
from support.delaying_proxy import delaying_proxy
from support.s3_server import S3


@dataclass
class Load:
    """How many objects a store takes at a time, now and at most."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    running: int = 0
    most: int = 0


class Slow(Store):
    """A store that takes a while for each object; counts how many it takes at a time."""

    def prepare(self, seconds: float = 0.05) -> Slow:
        self.seconds = seconds
        # Shared with the copies that a writer makes of its store.
        self.load = Load()
        return self

    def _take(self, work: Callable[[], None]) -> None:
        load = self.load
        with load.lock:
            load.running += 1
            load.most = max(load.most, load.running)
        try:
            time.sleep(self.seconds)
            work()
        finally:
            with load.lock:
                load.running -= 1

    def write_bytes(self, key: str, data: bytes) -> None:
        self._take(lambda: Store.write_bytes(self, key, data))

    def put_file(self, local_path: Path, key: str, *, move: bool = False) -> None:
        self._take(lambda: Store.put_file(self, local_path, key, move=move))


@pytest.fixture
def slow() -> Slow:
    return Slow(f"memory://{uuid.uuid4().hex}/run").prepare()


def test_files_are_uploaded_side_by_side(slow: Slow) -> None:
    files = {f"tower/file-{number}": bytes([number]) for number in range(30)}
    files |= {f"decoder/file-{number}": lambda path: path.write_bytes(b"x") for number in range(30)}
    save(slow, 1, files=files)
    assert 2 < slow.load.most <= uploads.MAX_UPLOADS
    assert verify(slow, 1) == []


def test_files_of_one_name_do_not_meet_while_they_are_staged(slow: Slow) -> None:
    def writing(content: bytes) -> Callable[[Path], object]:
        return lambda path: path.write_bytes(content)

    save(slow, 1, files={f"{part}/model": writing(part.encode()) for part in ("a", "a-b", "b")})
    for part in ("a", "a-b", "b"):
        assert slow.read_bytes(f"checkpoint-1/{part}/model") == part.encode()


def test_staging_takes_one_file_more_than_its_limit(
    slow: Slow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MAX_STAGED", 1000)
    taken: list[int] = []

    def writing(size: int) -> Callable[[Path], object]:
        def write(path: Path) -> None:
            path.write_bytes(bytes(size))
            staged = 0
            for each in list(path.parent.iterdir()):
                with contextlib.suppress(FileNotFoundError):  # uploaded meanwhile
                    staged += each.stat().st_size
            taken.append(staged - size)

        return write

    sizes = [300] * 8 + [5000] * 3 + [300] * 8
    files = {f"{number:02}": writing(size) for number, size in enumerate(sizes)}
    with only_rank(slow, staging=tmp_path) as writer:
        writer.submit(1, files)
        writer.wait()
    # Small ones share the limit; beside a large one there is nothing.
    assert 0 < max(taken) <= 1000 + 300
    assert taken[9:12] == [0, 0, 0]
    assert slow.load.most > 2
    assert verify(slow, 1) == []


def test_the_first_failure_ends_the_save_and_nothing_arrives_afterwards(slow: Slow) -> None:
    begun: list[str] = []

    class Failing(Slow):
        def write_bytes(self, key: str, data: bytes) -> None:
            begun.append(key)
            if key.endswith("/03"):
                raise StoreError(f"Cannot write {key}: refused")
            super().write_bytes(key, data)

    store = Failing(slow.url).prepare(0.3)
    with only_rank(store) as writer:
        writer.submit(1, {f"{number:02}": b"x" for number in range(40)})
        with pytest.raises(StoreError, match="checkpoint-1/03: refused"):
            writer.wait()
        assert len(begun) <= uploads.MAX_UPLOADS + 3
        # Those under way were waited for, and are deleted like the others.
        assert store.load.running == 0
        assert store.list() == {}
        writer.submit(2, {"a": b"x"})
        writer.wait()
    assert [info.step for info in list_checkpoints(store) if info.valid] == [2]


def test_a_distant_store_takes_a_few_answers_and_not_one_a_file(s3: S3) -> None:
    files = {f"tower/file-{number:02}": bytes([number]) for number in range(32)}
    url = s3.url(f"{uuid.uuid4().hex}/run")
    delay_s = 0.4
    with delaying_proxy(s3.endpoint, delay_s) as endpoint:
        store = Store(url, {**s3.options, "endpoint_url": endpoint})
        store.check_writable()
        started = time.monotonic()
        save(store, 1, files=files)
        seconds = time.monotonic() - started
    # Each write waits for two answers ("100 Continue"): 64 of them, one after the other.
    assert seconds < 0.75 * 64 * delay_s
    assert verify(Store(url, s3.options), 1) == []
