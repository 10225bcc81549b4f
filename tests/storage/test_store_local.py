"""What happens on a local store alone: full disks, folders without rights, crashes in mid-write."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from arlow_trainer.checkpoint.reader import list_checkpoints, verify
from arlow_trainer.config.errors import StoreError
from arlow_trainer.storage.store import Store
from support.checkpoints import files_of, local_file, only_rank, save
from support.processes import become_nobody, in_fork


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a full disk needs the right to mount a tmpfs: run as root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_named_and_loses_nothing(small_disk: Path) -> None:
    store = Store(str(small_disk / "run"))
    save(store, 1)
    with pytest.raises(StoreError, match=r"No space left on device.*Free some space"):
        save(store, 2, files=files_of(2, size=2 * 2**20))
    assert verify(store, 1) == []
    assert [info.step for info in list_checkpoints(store) if info.valid] == [1]
    assert not any(path.stat().st_size > 2**18 for path in small_disk.rglob("*"))
    assert Store(store.url).list_dirs() == ["checkpoint-1"]
    save(store, 3)
    assert verify(store, 3) == []


def test_a_full_disk_under_the_staging_folder_is_named(small_disk: Path) -> None:
    store = Store("memory://full-staging/run")
    with only_rank(store, staging=small_disk) as writer:
        writer.submit(1, files_of(1, size=2 * 2**20))
        with pytest.raises(StoreError, match=rf"{small_disk}.*No space left"):
            writer.wait()
        writer.submit(2, files_of(2))
        writer.wait()
    assert verify(store, 2) == []
    assert list(small_disk.iterdir()) == []


def test_a_full_disk_leaves_the_old_content(small_disk: Path) -> None:
    store = Store(str(small_disk))
    store.write_bytes("a", b"old")
    with pytest.raises(StoreError, match=rf"write {small_disk}/a: No space left on device"):
        store.write_bytes("a", bytes(2 * 2**20))
    assert store.read_bytes("a") == b"old"
    assert os.listdir(small_disk) == ["a"]


def test_a_download_to_a_full_disk_names_the_disk(small_disk: Path, tmp_path: Path) -> None:
    store = Store("memory://download/run")
    store.put_file(local_file(tmp_path / "large", 2 * 2**20), "large")
    with pytest.raises(StoreError, match=rf"write {small_disk}/large: No space left"):
        store.get_file("large", small_disk / "large")
    assert os.listdir(small_disk) == []


def test_a_file_size_limit_is_named(tmp_path: Path) -> None:
    store = Store(str(tmp_path))

    def write() -> str:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(StoreError) as caught:
            store.write_bytes("a", bytes(5000))
        return str(caught.value)

    message = in_fork(write)
    assert f"Cannot write {tmp_path}/a: File too large" in message
    assert "quota" in message


def test_a_folder_without_rights_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    store = Store(str(folder / "run"))

    def write() -> str:
        become_nobody()
        with pytest.raises(StoreError) as caught:
            store.check_writable()
        return str(caught.value)

    message = in_fork(write)
    assert f"Cannot write {folder}/run: " in message
    assert "Permission denied" in message
    assert "right to write" in message
    assert message.endswith("Check spec.checkpoint.url.")


@pytest.mark.parametrize("move", [False, True])
def test_a_file_may_be_read_by_whoever_may_read_others(tmp_path: Path, move: bool) -> None:
    """safetensors keeps what it writes from all but its owner: other users load checkpoints."""
    store = Store(str(tmp_path / "run"))
    store.write_bytes("a", b"")
    written = local_file(tmp_path / "b", 10)
    written.chmod(0o600)
    store.put_file(written, "b", move=move)
    modes = {stat.S_IMODE((tmp_path / "run" / name).stat().st_mode) for name in "ab"}
    assert len(modes) == 1
    assert [path.name for path in sorted((tmp_path / "run").iterdir())] == ["a", "b"]


def test_who_may_not_read_is_told_so(tmp_path: Path) -> None:
    def read() -> str:
        become_nobody()
        with pytest.raises(StoreError) as refused:
            Store(str(tmp_path)).read_bytes("a")
        return str(refused.value)

    tmp_path.chmod(0o755)
    (tmp_path / "a").touch(0o600)
    assert "right to read there" in in_fork(read)


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_bytes(b"")
    with pytest.raises(StoreError, match=r"runs/run: .*Not a directory"):
        Store(str(tmp_path / "runs" / "run")).check_writable()


def test_a_path_where_no_folder_can_be_created_is_named() -> None:
    with pytest.raises(StoreError) as caught:
        Store("/proc/x/tiny").check_writable()
    assert str(caught.value) == (
        "Cannot write /proc/x/tiny: No such file or directory. Check spec.checkpoint.url."
    )


def test_kill_in_mid_save_leaves_only_whole_checkpoints(tmp_path: Path) -> None:
    """SIGKILL at whatever moment: every checkpoint that is listed as valid verifies."""
    script = (
        "import sys\n"
        "from support.checkpoints import *\n"
        "store = Store(sys.argv[1])\n"
        "writer = only_rank(store, print)\n"
        "for step in range(1000):\n"
        "    writer.submit(step, files_of(step, size=100_000))\n"
        "    print(step, flush=True)\n"
    )
    for wait_s in (0.02, 0.05, 0.11):
        store = Store(str(tmp_path / str(wait_s)))
        process = subprocess.Popen(
            [sys.executable, "-c", script, store.url],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(wait_s)
        process.kill()
        process.communicate()
        for info in list_checkpoints(store):
            assert info.valid or info.unfinished
            if info.valid:
                assert verify(store, info.step) == []
        save(store, 2000)
        assert not (tmp_path / str(wait_s) / ".staging").exists()


@pytest.mark.parametrize("kind", ["fifo", "link to a device", "device"])
@pytest.mark.parametrize("read", ["whole", "range", "versioned", "file"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str, read: str) -> None:
    """A FIFO would never open, and /dev/zero, whose size is 0, would never end."""
    store, path = Store(str(tmp_path)), tmp_path / "status.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    else:
        try:
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
        except PermissionError:
            pytest.skip("a device needs the right to make one: run as root")
    readers: dict[str, Callable[[], object]] = {
        "whole": lambda: store.read_bytes("status.json"),
        "range": lambda: store.read_range("status.json", 0, 2**20),
        "versioned": lambda: store.read_versioned("status.json"),
        "file": lambda: store.get_file("status.json", tmp_path / "copy"),
    }

    def limited() -> str:
        resource.setrlimit(resource.RLIMIT_DATA, (2**31, 2**31))
        with pytest.raises(StoreError, match=r"status\.json") as caught:
            readers[read]()
        return str(caught.value)

    said = in_fork(limited, timeout_s=30)
    assert read == "file" or "it is no regular file, and nothing else is read" in said
    assert store.list() == {}
    assert store.list_files() == []


def test_a_folder_that_another_rank_removes_is_made_again(tmp_path: Path) -> None:
    store, file = Store(str(tmp_path)), tmp_path / "file"
    file.write_bytes(b"1")
    ended = threading.Event()

    def remove() -> None:
        while not ended.is_set():
            store.delete_empty_folders("checkpoint-5")

    remover = threading.Thread(target=remove)
    remover.start()
    try:
        for _ in range(200):
            store.write_bytes("checkpoint-5/a/b", b"1")
            store.delete("checkpoint-5/a/b")
            store.put_file(file, "checkpoint-5/a/c")
            store.delete("checkpoint-5/a/c")
    finally:
        ended.set()
        remover.join()


def _fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("make", [_fifo, Path.mkdir])
@pytest.mark.parametrize(
    "act",
    [
        lambda store: store.read_bytes("run.json"),
        lambda store: store.read_versioned("run.json"),
        lambda store: store.write_if_unchanged("run.json", b"x", None),
        lambda store: store.write_bytes("run.json/below", b"x"),
    ],
)
def test_what_is_no_file_has_to_be_moved(
    tmp_path: Path, make: Callable[[Path], None], act: Callable[[Store], object]
) -> None:
    make(tmp_path / "run.json")
    if make is Path.mkdir:
        (tmp_path / "run.json" / "below").mkdir()
    with pytest.raises(StoreError, match=r"run\.json.*Something else has that name: move it"):
        act(Store(str(tmp_path)))


@pytest.mark.parametrize("make", [_fifo, Path.touch])
def test_what_is_no_folder_has_to_be_moved(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "logs")
    with pytest.raises(StoreError, match=r"logs/1.*Something else has that name: move it"):
        Store(str(tmp_path)).write_if_unchanged("logs/1/attempt.json", b"x", None)
