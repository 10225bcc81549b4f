"""What a store's URL means, and the fsspec file system that answers there."""

from __future__ import annotations

import inspect
import os
import threading
from types import MethodType
from typing import Any

import fsspec

from arlow_trainer.config import STORE_SCHEMES
from arlow_trainer.config.errors import ConfigError
from arlow_trainer.config.shown_text import has_credentials
from arlow_trainer.storage.literal_paths import take_paths_literally
from arlow_trainer.storage.local_files import RegularFiles

_INHERITED: list[Any] = []


def split_url(url: str) -> tuple[str, str]:
    """Scheme and path of a store's URL; a local path is of the scheme `file`.

    Raises ConfigError.
    """
    scheme, separator, path = url.partition("://")
    if not separator:
        scheme, path = "file", url
    if has_credentials(url):
        raise ConfigError(
            f"The store URL {url!r} holds credentials. Give them in the environment, and the URL "
            "without them: it is repeated in checkpoints, model cards and logs."
        )
    if scheme not in STORE_SCHEMES:
        raise ConfigError(
            f"The store URL {url!r} has the unknown scheme {scheme!r}. "
            f"Use a local path, or {', '.join(f'{known}://' for known in STORE_SCHEMES)}."
        )
    if not path.strip("/") and scheme not in ("file", "memory"):
        raise ConfigError(f"The store URL {url!r} names no bucket. Write {scheme}://bucket/folder.")
    if not path:
        raise ConfigError(f"The store URL {url!r} names no folder. Give a path or a URL.")
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

    From then on `connect` returns new ones of its kind, too (fsspec's cache is cleared), and
    `current` the newest for `fs`.
    """
    fs.clear_instance_cache()
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    scheme = next((each for each in protocols if each in STORE_SCHEMES), "")
    again = take_paths_literally(type(fs)(*fs.storage_args, **fs.storage_options), scheme)
    _try_once(again, scheme)
    fs.reconnected = again
    return again


def current(fs: Any) -> Any:
    """Returns the file system that `reconnect` has made of `fs` last; `fs` if it has made none."""
    return vars(fs).get("reconnected", fs)


def connect(url: str, **options: Any) -> tuple[Any, str]:
    """Returns the fsspec file system of a URL or local path, and the path in it.

    The file systems of STORE_SCHEMES take every path literally; in other URLs fsspec's own syntax
    holds (`zip://FILE::s3://BUCKET/ARCHIVE`). `options` go to the file system. Raises what fsspec
    does for a scheme that it does not know.
    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        scheme, url = "file", f"file://{url}"
    if scheme not in STORE_SCHEMES:
        # SFTP's file system, for one, takes no option that it does not know.
        fs, path = fsspec.url_to_fs(url, **options)
        return fs, str(path)
    # Listings are not cached: one must show what other processes wrote, and a large one costs much
    # memory.
    options["use_listings_cache"] = False
    if scheme == "s3":
        # Few inner attempts: the outer ones are ours, and a dead server must be reported soon.
        few = {"retries": {"mode": "standard", "total_max_attempts": 2}}
        options["config_kwargs"] = few | options.get("config_kwargs", {})
    fs_class = RegularFiles if scheme == "file" else fsspec.get_filesystem_class(scheme)
    # Azure's account may be in the URL. That "?versionId=" or "#1" means a version is not taken.
    implied = fs_class._get_kwargs_from_urls(url)
    implied.pop("version_aware", None)
    fs = take_paths_literally(fs_class(**implied | options), scheme)
    _try_once(fs, scheme)
    return fs, str(fs._strip_protocol(url))


def _try_once(fs: Any, scheme: str) -> None:
    """Takes a file system's own repetitions away: they would multiply its client's and ours."""
    if scheme == "s3":
        fs.retries = 1
    elif scheme in ("gs", "gcs"):
        # gcsfs repeats a request six times, half a minute, also one whose credentials are refused.
        for name in ("_request", "_get_file_request", "_get_file_concurrent"):
            if (method := getattr(type(fs), name, None)) is not None:
                setattr(fs, name, MethodType(inspect.unwrap(method), fs))
