"""What a store's URL means, and the fsspec file system that answers there."""

from __future__ import annotations

import os
import threading
from typing import Any

import fsspec

from arlow_trainer.config import STORE_SCHEMES
from arlow_trainer.config.errors import StoreError

_INHERITED: list[Any] = []


def split_url(url: str) -> tuple[str, str]:
    """Scheme and path of a store's URL; a local path is of the scheme `file`. Raises StoreError."""
    scheme, separator, path = url.partition("://")
    if not separator:
        scheme, path = "file", url
    if scheme not in STORE_SCHEMES:
        raise StoreError(
            f"The store URL {url!r} has the unknown scheme {scheme!r}. "
            "Use a local path, file://, s3://, gs://, az:// or memory://."
        )
    if not path.strip("/") and scheme not in ("file", "memory"):
        raise StoreError(f"The store URL {url!r} names no bucket. Write {scheme}://bucket/folder.")
    if not path:
        raise StoreError(f"The store URL {url!r} names no folder. Give a path or a URL.")
    return scheme, path


class Connection:
    """The fsspec file system of a store, created on first use and again after a fork.

    `renew` replaces it by one whose client reads credentials from their files and the environment
    anew. `worked` holds what ("read", "write", ...) has been done with success.
    """

    def __init__(self, url: str, scheme: str, options: dict[str, Any]) -> None:
        self._url = url
        self._scheme = scheme
        self._options = options
        self._fs: Any = None
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self.worked: set[str] = set()

    def file_system(self) -> Any:
        """The file system, the same one at every call in this process."""
        if self._pid != os.getpid():
            # Collected in a forked process, it would wait for the loop that only its parent runs.
            _INHERITED.append(self._fs)
            self._fs, self._lock = None, threading.Lock()
            self._pid = os.getpid()
        with self._lock:
            if self._fs is None:
                url = self._url if self._scheme != "file" else f"file://{self._url}"
                # An instance of its own: fsspec's cached one belongs to all who ask for it.
                self._fs, _ = connect(url, skip_instance_cache=True, **self._options)
            return self._fs

    def renew(self, refused: Any) -> None:
        """Forgets the file system `refused`, unless another thread has replaced it already."""
        with self._lock:
            if self._fs is refused:
                self._fs = None


def reconnect(fs: Any) -> Any:
    """Returns a file system like `fs` whose client reads its credentials anew.

    From then on `connect` returns new ones of its kind, too: fsspec keeps those of before no more.
    """
    fs.clear_instance_cache()
    again = type(fs)(*fs.storage_args, **fs.storage_options)
    if hasattr(fs, "retries"):
        again.retries = fs.retries
    return again


def connect(url: str, **options: Any) -> tuple[Any, str]:
    """Returns the fsspec file system of a URL or local path, and the path in it.

    `options` go to the file system. Raises what fsspec does for a scheme that it does not know.
    """
    scheme, _, _ = url.partition("://")
    if scheme in STORE_SCHEMES:
        # Listings are not cached: one must show what other processes wrote, and a large one costs
        # much memory. Other file systems, such as SFTP's, do not take the option.
        options["use_listings_cache"] = False
    if scheme == "s3" and "config_kwargs" not in options:
        # Few inner attempts: the outer ones are ours, and a dead server must be reported soon.
        options["config_kwargs"] = {"retries": {"mode": "standard", "total_max_attempts": 2}}
    fs, path = fsspec.url_to_fs(url, **options)
    if scheme == "s3":
        # Its repetitions would multiply botocore's and ours.
        fs.retries = 1
    return fs, str(path)
