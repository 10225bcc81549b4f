"""Objects that are written only while nobody else has written them, in every kind of store.

A version changes with every write: the ETag of S3 and Azure, Google's generation, elsewhere the
SHA-256 of the content. Where the store has conditional writes, it decides between two writers;
local files are compared and replaced under a lock. Servers without get the best that is possible
there: compare, write, and after a pause in which another's write would have arrived, read back.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from arlow_trainer.storage.failures import Failure, classify
from arlow_trainer.storage.local_files import create_exclusively, open_regular, write_atomically
from arlow_trainer.storage.timeouts import BoundedFileSystem, StoreTimeout

SETTLE_S = 1.0
# What is written on condition is a few hundred bytes.
MAX_BYTES = 2**20
LOCK_TIMEOUT_S = 10.0
_LOCK_POLL_S = 0.01
_NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class Versioned:
    """An object's content, and the version that it had at that moment."""

    data: bytes
    version: str


class ConditionalWrites:
    """Reads with versions, and writes and deletions on condition, in the stores of one scheme.

    Whether a server honours conditions is found out once, before the first write: some ignore them.
    """

    def __init__(self, scheme: str) -> None:
        self._kind = _KINDS[scheme]
        self._honoured: bool | None = None if scheme in _REMOTE else True

    def read(self, fs: BoundedFileSystem, path: str) -> Versioned | None:
        """Returns an object with its version; None where there is none."""
        try:
            return self._kind.read(fs, path)
        except Exception as error:
            if classify(error, local=True) is not Failure.MISSING:
                raise
            return None

    def write(
        self, fs: BoundedFileSystem, path: str, data: bytes, version: str | None
    ) -> str | None:
        """Writes if the version is `version` (None: if there is no object).

        Returns the new version; None where the condition does not hold.
        """
        if self._honoured is None:
            self._honoured = _honours_conditions(self._kind, fs, f"{path}-probe-{uuid.uuid4().hex}")
            if not self._honoured:
                self._kind = _Pausing(self._kind)
        try:
            return self._kind.write(fs, path, data, version)
        except Exception as error:
            if not _is_refusal(error, version):
                raise
        # An earlier attempt at this write may have reached the store though its answer was lost.
        found = self.read(fs, path)
        return found.version if found is not None and found.data == data else None

    def delete(self, fs: BoundedFileSystem, path: str, version: str) -> bool:
        """Deletes if the version is `version`; returns whether it did."""
        try:
            self._kind.delete(fs, path, version)
        except Exception as error:
            if _is_refusal(error, version):
                return False
            if classify(error, local=True) is not Failure.UNSUPPORTED:
                raise
            # Some servers write on conditions but do not delete on them.
            found = self.read(fs, path)
            if found is None or found.version != version:
                return False
            fs.rm_file(path)
        return True


class _Kind(Protocol):
    """How one kind of store does it.

    Where a condition does not hold, it raises an error that `classify` calls EXISTS or MISSING.
    """

    def read(self, fs: BoundedFileSystem, path: str) -> Versioned:
        """Returns content and version of an object that exists."""

    def write(self, fs: BoundedFileSystem, path: str, data: bytes, version: str | None) -> str:
        """Writes on condition and returns the new version."""

    def delete(self, fs: BoundedFileSystem, path: str, version: str) -> None:
        """Deletes on condition."""


class _S3:
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-requests.html

    def read(self, fs: BoundedFileSystem, path: str) -> Versioned:
        async def get(s3fs: Any) -> Versioned:
            bucket, key, _ = s3fs.split_path(path)
            answer = await s3fs._call_s3("get_object", Bucket=bucket, Key=key)
            return Versioned(await answer["Body"].read(), answer["ETag"])

        return fs.finish(get)

    def write(self, fs: BoundedFileSystem, path: str, data: bytes, version: str | None) -> str:
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}

        async def put(s3fs: Any) -> str:
            bucket, key, _ = s3fs.split_path(path)
            answer = await s3fs._call_s3(
                "put_object", Bucket=bucket, Key=key, Body=data, **condition
            )
            return str(answer["ETag"])

        return fs.finish(put)

    def delete(self, fs: BoundedFileSystem, path: str, version: str) -> None:
        async def delete(s3fs: Any) -> None:
            bucket, key, _ = s3fs.split_path(path)
            await s3fs._call_s3("delete_object", Bucket=bucket, Key=key, IfMatch=version)

        fs.finish(delete)


class _Google:
    # https://cloud.google.com/storage/docs/request-preconditions

    def read(self, fs: BoundedFileSystem, path: str) -> Versioned:
        async def get(gcsfs: Any) -> Versioned:
            headers, content = await gcsfs._call("GET", gcsfs.url(path))
            return Versioned(content, headers["x-goog-generation"])

        return fs.finish(get)

    def write(self, fs: BoundedFileSystem, path: str, data: bytes, version: str | None) -> str:
        async def put(gcsfs: Any) -> str:
            bucket, key, _ = gcsfs.split_path(path)
            answer = await gcsfs._call(
                "POST",
                f"{gcsfs._location}/upload/storage/v1/b/{{}}/o",
                bucket,
                uploadType="media",
                name=key,
                ifGenerationMatch=version or "0",
                headers={"Content-Type": "application/octet-stream"},
                data=data,
                json_out=True,
            )
            return str(answer["generation"])

        return fs.finish(put)

    def delete(self, fs: BoundedFileSystem, path: str, version: str) -> None:
        async def delete(gcsfs: Any) -> None:
            bucket, key, _ = gcsfs.split_path(path)
            await gcsfs._call("DELETE", "b/{}/o/{}", bucket, key, ifGenerationMatch=version)

        fs.finish(delete)


class _Azure:
    # https://learn.microsoft.com/rest/api/storageservices/specifying-conditional-headers-for-blob-service-operations

    def read(self, fs: BoundedFileSystem, path: str) -> Versioned:
        async def get(adlfs: Any) -> Versioned:
            async with self._blob(adlfs, path) as blob:
                stream = await blob.download_blob()
                return Versioned(await stream.readall(), stream.properties.etag)

        return fs.finish(get)

    def write(self, fs: BoundedFileSystem, path: str, data: bytes, version: str | None) -> str:
        condition = {"overwrite": False} if version is None else self._unchanged(version)

        async def put(adlfs: Any) -> str:
            async with self._blob(adlfs, path) as blob:
                answer = await blob.upload_blob(data, **{"overwrite": True, **condition})
                return str(answer["etag"])

        return fs.finish(put)

    def delete(self, fs: BoundedFileSystem, path: str, version: str) -> None:
        async def delete(adlfs: Any) -> None:
            async with self._blob(adlfs, path) as blob:
                await blob.delete_blob(**self._unchanged(version))

        fs.finish(delete)

    @staticmethod
    def _blob(adlfs: Any, path: str) -> Any:
        container, name, _ = adlfs.split_path(path)
        return adlfs.service_client.get_blob_client(container=container, blob=name)

    @staticmethod
    def _unchanged(version: str) -> dict[str, Any]:
        from azure.core import MatchConditions

        return {"etag": version, "match_condition": MatchConditions.IfNotModified}


class _Local:
    def read(self, fs: BoundedFileSystem, path: str) -> Versioned:
        with open_regular(Path(path)) as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise OSError(
                errno.EINVAL, f"it is damaged: it has more than {MAX_BYTES:,} bytes", path
            )
        return Versioned(data, _digest(data))

    def write(self, fs: BoundedFileSystem, path: str, data: bytes, version: str | None) -> str:
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        with _locked(file) as locked:
            if version is None:
                create_exclusively(file, data)
            else:
                _compare(self.read(fs, path), version)
                write_atomically(file, lambda opened: opened.write(data))
        if not locked:
            time.sleep(SETTLE_S)
            _compare(self.read(fs, path), _digest(data))
        return _digest(data)

    def delete(self, fs: BoundedFileSystem, path: str, version: str) -> None:
        with _locked(Path(path)):
            _compare(self.read(fs, path), version)
            Path(path).unlink()


class _Memory:
    _lock = threading.Lock()

    def read(self, fs: BoundedFileSystem, path: str) -> Versioned:
        data = bytes(fs.cat_file(path))
        return Versioned(data, _digest(data))

    def write(self, fs: BoundedFileSystem, path: str, data: bytes, version: str | None) -> str:
        with self._lock:
            if version is not None:
                _compare(self.read(fs, path), version)
            fs.pipe_file(path, data, mode="create" if version is None else "overwrite")
        return _digest(data)

    def delete(self, fs: BoundedFileSystem, path: str, version: str) -> None:
        with self._lock:
            _compare(self.read(fs, path), version)
            fs.rm_file(path)


class _Pausing:
    """Servers that ignore conditions: of two writers, the one whose content stays has won."""

    def __init__(self, kind: _Kind) -> None:
        self._kind = kind

    def read(self, fs: BoundedFileSystem, path: str) -> Versioned:
        return self._kind.read(fs, path)

    def write(self, fs: BoundedFileSystem, path: str, data: bytes, version: str | None) -> str:
        try:
            _compare(self.read(fs, path), version)
        except Exception as error:
            if version is not None or classify(error, local=True) is not Failure.MISSING:
                raise
        fs.pipe_file(path, data)
        time.sleep(SETTLE_S)
        found = self.read(fs, path)
        if found.data != data:
            raise FileExistsError(errno.EEXIST, "another writer was faster")
        return found.version

    def delete(self, fs: BoundedFileSystem, path: str, version: str) -> None:
        _compare(self.read(fs, path), version)
        fs.rm_file(path)


_REMOTE: dict[str, _Kind] = {
    "s3": _S3(),
    "gs": _Google(),
    "gcs": _Google(),
    "az": _Azure(),
    "abfs": _Azure(),
}
_KINDS: dict[str, _Kind] = {"file": _Local(), "memory": _Memory(), **_REMOTE}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _compare(found: Versioned, version: str | None) -> None:
    if found.version != version:
        raise FileExistsError(errno.EEXIST, "another writer was faster")


def _is_refusal(error: Exception, version: str | None) -> bool:
    """Whether an error says that the object is not of this version, or is gone."""
    reason = classify(error, local=True)
    return reason is Failure.EXISTS or (reason is Failure.MISSING and version is not None)


def _honours_conditions(kind: _Kind, fs: BoundedFileSystem, path: str) -> bool:
    """Tries on an object of its own whether a server refuses to write what was changed."""
    try:
        first = kind.write(fs, path, b"1", None)
        second = kind.write(fs, path, b"2", first)
        return (
            kind.read(fs, path) == Versioned(b"2", second)
            and _refuses(kind, fs, path, None)
            and _refuses(kind, fs, path, first)
        )
    except Exception as error:
        # A server that knows no conditions may call them a wrong request.
        if classify(error, local=True) not in (Failure.UNSUPPORTED, Failure.OTHER, Failure.EXISTS):
            raise
        return False
    finally:
        fs.renew()
        with contextlib.suppress(Exception):
            fs.rm_file(path)


def _refuses(kind: _Kind, fs: BoundedFileSystem, path: str, version: str | None) -> bool:
    try:
        kind.write(fs, path, b"3", version)
    except Exception as error:
        if not _is_refusal(error, version):
            raise
        return True
    return False


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[bool]:
    """Holds a file's lock against other processes and threads; a process that dies releases it.

    Yields False where the file system has no locks. Raises StoreTimeout.
    """
    lock = file.with_name(f".{file.name}.lock.tmp")
    descriptor = _lock(lock)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            lock.unlink()
            os.close(descriptor)


def _lock(lock: Path) -> int | None:
    """Returns the open and locked file `lock`; None where the file system has no locks."""
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its holder removes it at the end: if that has happened, others lock a new one.
            if os.path.samestat(os.fstat(descriptor), lock.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                raise StoreTimeout(
                    f"{lock.name} has been locked for {LOCK_TIMEOUT_S:.0f} s"
                ) from None
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _NO_LOCKS_HERE:
                raise
            lock.unlink(missing_ok=True)
            return None
        os.close(descriptor)
        time.sleep(_LOCK_POLL_S)
