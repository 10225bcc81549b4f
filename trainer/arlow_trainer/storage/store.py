"""A folder of objects behind a URL: local path, file://, s3://, gs://, az:// or memory://.

Thin over fsspec. What it adds: every path is literal, listings are fresh, a local write is atomic
and durable, transient errors are retried a bounded number of times, every operation over a network
ends within a time limit, and every failure says which URL, why, and what to do.
"""

from __future__ import annotations

import builtins
import copy
import hashlib
import math
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from arlow_trainer.config.errors import ArlowError, CredentialsError, StoreError
from arlow_trainer.storage.access import TIMEOUT_S, Access
from arlow_trainer.storage.conditional import ConditionalWrites, Versioned
from arlow_trainer.storage.connection import split_url
from arlow_trainer.storage.errors import (
    MissingObject,
    OversizedObject,
    failure_message,
    local_error,
)
from arlow_trainer.storage.failures import Failure, classify
from arlow_trainer.storage.listing import (
    delete_file,
    delete_folder,
    find_objects,
    names_below,
    object_info,
)
from arlow_trainer.storage.local_files import (
    extend_local,
    is_temporary,
    put_local,
    remove_empty_folders,
    temporary_beside,
    write_atomically,
)
from arlow_trainer.storage.timeouts import BoundedFileSystem, Deadline

DELETERS = 8
READ_CHUNK = 32 * 2**20
# Manifests, states, pictures and files of lines, which are rotated, are far smaller.
MAX_READ_BYTES = 64 * 2**20
# Small enough to be transferred over a slow network in that time, several at once.
S3_PART = 16 * 2**20
S3_MAX_PARTS = 9000

T = TypeVar("T")


class Store:
    """The objects under one URL. Keys are relative paths with forward slashes.

    URL and keys are literal: `*`, `?`, `[`, `#` and `%` are characters like others. Empty parts of
    the URL (`s3://bucket//folder`) are dropped.

    `options` go to fsspec's file system (for s3: `endpoint_url`, `key`, `secret`, ...); what they
    lack is taken from the usual environment (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`,
    `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME`, ...). Nothing is contacted
    before the first operation. An instance may be used from several threads and after a fork.

    An operation that gets no answer for `timeout_s` seconds, repetitions included, ends; one that
    moves large files may take longer as long as their parts arrive. Local folders have no limit.

    Raises ConfigError for a URL that can be no store's.

    Credentials that are refused are read again, from their files and the environment. Every
    operation raises `CredentialsError` when they are still refused or missing, and
    `StoreError` for every other failure (`MissingObject` where the object does not exist).
    """

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        scheme, path = split_url(url)
        self._scheme = scheme
        if scheme == "file":
            path = os.path.abspath(os.path.expanduser(path))
            self._url = path
        else:
            # Without empty parts, which servers drop, or keep in some operations only.
            self._url = f"{scheme}://{'/'.join(filter(None, path.split('/')))}"
        self._access = Access(self._url, scheme, options or {}, timeout_s)
        self._conditional = ConditionalWrites(scheme)

    def __repr__(self) -> str:
        return f"Store({self._url!r})"

    @property
    def url(self) -> str:
        """URL or local path of the folder, without a trailing slash."""
        return self._url

    @property
    def local_path(self) -> Path | None:
        """The folder on this machine; None for a store that is not local files."""
        return Path(self._url) if self._scheme == "file" else None

    def url_of(self, key: str) -> str:
        """Full URL (or local path) of an object."""
        return f"{self._url}/{_checked(key)}"

    def child(self, name: str) -> Store:
        """The store of a subfolder; shares this one's connection."""
        inner = copy.copy(self)
        inner._url = self.url_of(name)
        return inner

    def forbid_writes(self, reason: ArlowError) -> None:
        """Makes every later write and deletion through this instance raise `reason`.

        Also through those that `child`, `persistent` and `stoppable` have made of it.
        """
        self._access.forbid_writes(reason)

    def persistent(self, given_up: threading.Event) -> Store:
        """The same store for what must not be lost: it retries for minutes instead of seconds.

        Every operation under way ends soon after `given_up` is set, with a StoreError.
        """
        inner = copy.copy(self)
        inner._access = self._access.persistent(given_up)
        return inner

    def stoppable(self, within: Callable[[float], float]) -> Store:
        """The same store for a run that may be asked to stop: its operations then end soon.

        `within` returns how many of some seconds an operation may take (`Grace.within`). One that
        has less time than it needs raises StoreError.
        """
        inner = copy.copy(self)
        inner._access = self._access.stoppable(within)
        return inner

    def read_bytes(self, key: str) -> bytes:
        """A small object's content. Raises OversizedObject for more than `MAX_READ_BYTES`."""

        def read(fs: Any, path: str) -> bytes:
            # Anybody may have written it: its size is looked at first, and not trusted.
            fs.invalidate_cache()
            size, content = int(fs.info(path).get("size") or 0), b""
            if size <= MAX_READ_BYTES:
                # Of an empty object, servers refuse every range.
                whole = size == 0 and self._scheme not in ("file", "memory")
                limit = {} if whole else {"start": 0, "end": MAX_READ_BYTES + 1}
                content = bytes(fs.cat_file(path, **limit))
            size = max(size, len(content))
            if size > MAX_READ_BYTES:
                raise OversizedObject(
                    f"{self.url_of(key)} is damaged: it has {size:,} bytes, and no such file has "
                    f"more than {MAX_READ_BYTES:,}. Move it away."
                )
            return content

        return self._run("read", _checked(key), read)

    def read_range(self, key: str, start: int, end: int) -> bytes:
        """The bytes of an object from `start` to before `end`, which must lie in it."""
        return self._run(
            "read", _checked(key), lambda fs, path: bytes(fs.cat_file(path, start=start, end=end))
        )

    def write_bytes(self, key: str, data: bytes) -> None:
        """Writes an object; a reader sees the old content or the new, never a part."""

        def write(fs: Any, path: str) -> None:
            if self._scheme == "file":
                write_atomically(Path(path), lambda file: file.write(data))
            else:
                fs.pipe_file(path, data)

        self._run("write", _checked(key), write)

    def extend(self, key: str, data: bytes, known: int) -> None:
        """Writes an object that has the first `known` bytes of `data` already.

        A local file is appended to: its readers hold it open. Elsewhere the object is replaced.
        """

        def write(fs: Any, path: str) -> None:
            if self._scheme == "file":
                extend_local(Path(path), data, known)
            else:
                fs.pipe_file(path, data)

        self._run("write", _checked(key), write)

    def read_versioned(self, key: str) -> Versioned | None:
        """An object's content and version, which every write changes; None where there is none."""
        return self._run("read", _checked(key), self._conditional.read)

    def write_if_unchanged(self, key: str, data: bytes, version: str | None) -> str | None:
        """Writes an object if its version is `version`, or if there is none where that is None.

        Returns the new version, or None where the condition does not hold: of several writers that
        know the same version exactly one succeeds. `data` must be like no other's, since a write
        whose answer was lost is recognised by it. On servers without conditional writes two may
        succeed where one takes longer than `SETTLE_S` over its write; a later one shows it.
        """

        def write(fs: BoundedFileSystem, path: str) -> str | None:
            return self._conditional.write(fs, path, data, version)

        return self._run("write", _checked(key), write)

    def delete_if_unchanged(self, key: str, version: str) -> bool:
        """Deletes an object if its version is `version`; returns whether it did."""

        def delete(fs: BoundedFileSystem, path: str) -> bool:
            return self._conditional.delete(fs, path, version)

        return self._run("delete", _checked(key), delete)

    def put_file(self, local_path: Path, key: str, *, move: bool = False) -> None:
        """Uploads a file. With `move` a local store may rename the file instead of copying it."""
        deadline = self._access.deadline(parts=True)

        def put(fs: Any, path: str) -> None:
            deadline.renew()
            if self._scheme == "file":
                put_local(local_path, Path(path), move=move)
            else:
                size = local_path.stat().st_size
                fs.put_file(
                    str(local_path), path, callback=deadline.callback, **self._in_parts(size)
                )

        self._run("write", _checked(key), put, deadline)

    def get_file(self, key: str, local_path: Path) -> None:
        """Downloads an object. The file has its name only once it is complete."""
        temporary = temporary_beside(local_path)
        deadline = self._access.deadline(parts=True)

        def get(fs: Any, path: str) -> None:
            try:
                temporary.parent.mkdir(parents=True, exist_ok=True)
                temporary.touch()
            except OSError as error:
                raise local_error(local_path, error) from error
            deadline.renew()
            try:
                fs.get_file(path, str(temporary), callback=deadline.callback, **self._in_parts(0))
            except OSError as error:
                if classify(error, local=True) is Failure.FULL:
                    raise local_error(local_path, error) from error
                raise
            os.replace(temporary, local_path)

        try:
            self._run("read", _checked(key), get, deadline)
        finally:
            temporary.unlink(missing_ok=True)

    def digest(self, key: str) -> tuple[int, str]:
        """Size in bytes and SHA-256 (hex) of an object's content, read in chunks."""
        size = self.size(key)
        sha256 = hashlib.sha256()
        count = 0
        for chunk in self._chunks(key, size):
            sha256.update(chunk)
            count += len(chunk)
        return count, sha256.hexdigest()

    def list(self, prefix: str = "") -> dict[str, int]:
        """Every object under `prefix`: its key relative to the store, and its size in bytes."""

        def find(fs: Any, path: str) -> dict[str, int]:
            return {
                self._relative(fs, name): size
                for name, size in find_objects(fs, path).items()
                # Consoles mark a folder with an empty object of its name and a slash.
                if not name.endswith("/") and not is_temporary(name)
            }

        return self._run("list", prefix and _checked(prefix), find)

    def list_dirs(self, prefix: str = "") -> builtins.list[str]:
        """Names of the folders directly under `prefix`."""
        return self._names(prefix, "directory")

    def list_files(self, prefix: str = "") -> builtins.list[str]:
        """Names of the objects directly under `prefix`."""
        return self._names(prefix, "file")

    def exists(self, key: str) -> bool:
        """Whether there is an object (not a folder) with this key."""
        return self._info(key) is not None

    def size(self, key: str) -> int:
        """Size of an object in bytes."""
        info = self._info(key)
        if info is None:
            raise MissingObject(
                failure_message(
                    "read", self.url_of(key), Failure.MISSING, "there is no such object"
                )
            )
        return int(info["size"])

    def delete(self, key: str) -> None:
        """Deletes one object; does nothing if there is none."""

        self._run("delete", _checked(key), delete_file)

    def delete_tree(self, prefix: str) -> None:
        """Deletes everything under `prefix`; does nothing if there is nothing."""
        if self._scheme == "file":
            self._run("delete", _checked(prefix), delete_folder)
            return
        # Object by object: fsspec's recursive deletion takes the path for a glob.
        found = self._run("delete", _checked(prefix), find_objects)

        def delete(path: str) -> None:
            self._run("delete", prefix, lambda fs, _: delete_file(fs, path))

        with ThreadPoolExecutor(DELETERS) as pool:
            for _ in pool.map(delete, found):
                pass

    def delete_empty_folders(self, prefix: str) -> None:
        """Deletes the folder `prefix` and those below it, where no file is in them.

        Local folders outlive their last file; other stores have none.
        """
        if self._scheme == "file":
            self._run("delete", _checked(prefix), lambda _, path: remove_empty_folders(Path(path)))

    def delete_all(self, listed: Iterable[str]) -> None:
        """Deletes objects as `list` names them, several at once; a missing one is no error."""

        # Not checked: others may have named them as no key of ours is (`a//b`).
        def delete(key: str) -> None:
            self._run("delete", key, delete_file)

        with ThreadPoolExecutor(DELETERS) as pool:
            for _ in pool.map(delete, listed):
                pass

    def check_writable(self) -> None:
        """Writes, reads back and deletes a small object; fails as saving a checkpoint would."""
        key = f"probe-{uuid.uuid4().hex}"
        try:
            self._write_and_read(key)
        except (StoreError, CredentialsError) as error:
            # The object's name means nothing to those who chose the URL.
            message = str(error).replace(f"/{key}", "").replace("Check the URL and the name.", "")
            remedy = "" if isinstance(error, CredentialsError) else " Check spec.checkpoint.url."
            raise type(error)(message.rstrip() + remedy) from error.__cause__

    def _write_and_read(self, key: str) -> None:
        data = os.urandom(64)
        self.write_bytes(key, data)
        try:
            if self.read_bytes(key) != data:
                raise StoreError(
                    f"The store {self._url} does not return what was written to it. "
                    "Check that no proxy or cache lies between."
                )
        finally:
            self.delete(key)

    def _names(self, prefix: str, kind: str) -> builtins.list[str]:
        def names(fs: Any, path: str) -> builtins.list[str]:
            return names_below(fs, path, kind)

        return self._run("list", prefix and _checked(prefix), names)

    def _info(self, key: str) -> dict[str, Any] | None:
        return self._run("read", _checked(key), object_info)

    def _chunks(self, key: str, size: int) -> Iterator[bytes]:
        for start in range(0, size, READ_CHUNK):

            def read(fs: Any, path: str, start: int = start) -> bytes:
                return bytes(fs.cat_file(path, start=start, end=min(start + READ_CHUNK, size)))

            yield self._run("read", _checked(key), read, self._access.deadline(parts=True))

    def _relative(self, fs: Any, name: str) -> str:
        root = str(fs._strip_protocol(self._url)).rstrip("/")
        return name.removeprefix(root).lstrip("/")

    def _in_parts(self, size: int) -> dict[str, int]:
        if self._scheme != "s3":
            return {}
        return {"chunksize": max(S3_PART, math.ceil(size / S3_MAX_PARTS))}

    def _run(
        self,
        doing: str,
        key: str,
        work: Callable[[Any, str], T],
        deadline: Deadline | None = None,
    ) -> T:
        return self._access.run(doing, self._url, key, work, deadline)


def _checked(key: str) -> str:
    """Returns the key. Raises ValueError for one that leads out of its store."""
    if any(part in ("", ".", "..") for part in key.split("/")):
        raise ValueError(f"a key is a relative path without dots-only parts, not {key!r}")
    return key
