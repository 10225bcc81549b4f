"""Sets of media files: those of a folder, and those that a list names."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

from arlow_trainer.config.errors import CredentialsError, DataError
from arlow_trainer.config.shown_text import redact_urls
from arlow_trainer.data.decode import BrokenSample, RawSample, read_remote_sample
from arlow_trainer.data.file_names import FileNames
from arlow_trainer.data.fingerprint import Entry, sampled_positions, without_fingerprint
from arlow_trainer.storage.options import AS_THE_ENVIRONMENT_SAYS, Access
from arlow_trainer.storage.remote_files import file_info
from arlow_trainer.storage.retries import with_retries

_ASKING = 16


class MediaSource:
    """Media files of a folder: local ones by path, remote ones read when they are asked for."""

    def __init__(
        self, name: str, url: str, files: FileNames, access: Access = AS_THE_ENVIRONMENT_SAYS
    ) -> None:
        self.name = name
        self._url = url
        self._files = files
        self._access = access

    def __len__(self) -> int:
        return len(self._files)

    def read(self, position: int) -> RawSample:
        """Returns one undecoded sample. Raises as `read_remote_sample` does."""
        file = self._files[position]
        name = f"{self.name.rstrip('/')}/{file}"
        fs, root = self._connected
        path = f"{root.rstrip('/')}/{file}"
        if is_local(fs):
            return RawSample(name, path)
        # fsspec's own instance, which may be a newer one that read its credentials again.
        return read_remote_sample(name, self._access.connect(self._url)[0], path)

    def entries(self) -> list[Entry]:
        """Names, sizes and times of some files, spread evenly over the set."""
        fs, root = self._connected

        def info(file: str) -> tuple[int | None, str | None]:
            return file_info(fs, f"{root.rstrip('/')}/{file}")

        return _entries(self.name, self._files, info)

    @cached_property
    def _connected(self) -> tuple[Any, str]:
        return self._access.connect(self._url)

    def __getstate__(self) -> dict[str, Any]:
        # Every decoding process makes a connection of its own.
        return {key: value for key, value in self.__dict__.items() if key != "_connected"}


class ListedSource:
    """Media files at full paths and URLs."""

    def __init__(
        self, name: str, locations: FileNames, access: Access = AS_THE_ENVIRONMENT_SAYS
    ) -> None:
        self.name = name
        self._locations = locations
        self._access = access

    def __len__(self) -> int:
        return len(self._locations)

    def read(self, position: int) -> RawSample:
        """Returns one undecoded sample. Raises as `read_remote_sample` does.

        A file that a web server refuses is a broken one: others of the list are on other servers.
        """
        location = self._locations[position]
        if "://" not in location:
            return RawSample(location, location)
        # A URL may be a signed one.
        name = redact_urls(location)
        try:
            return read_remote_sample(name, *self._access.connect(location))
        except (CredentialsError, DataError) as error:
            if not location.startswith(("http://", "https://")):
                raise
            raise BrokenSample(name, str(error).removeprefix(f"{name}: ")) from error

    def entries(self) -> list[Entry]:
        """Names, sizes and times of some files, spread evenly over the list."""

        def info(location: str) -> tuple[int | None, str | None]:
            if location.startswith(("http://", "https://")):
                return None, None  # hundreds of servers, of which some do not answer
            return file_info(*self._access.connect(location))

        return _entries(self.name, self._locations, info)


def is_local(fs: Any) -> bool:
    """Whether a file system is that of this machine."""
    protocols = fs.protocol
    return "file" in ((protocols,) if isinstance(protocols, str) else protocols)


def _entries(
    name: str, files: FileNames, info: Callable[[str], tuple[int | None, str | None]]
) -> list[Entry]:
    def entry(file: str) -> Entry:
        shown = redact_urls(file)
        try:
            return Entry(shown, *with_retries(shown, lambda: info(file)))
        except (FileNotFoundError, NotADirectoryError):
            return Entry(shown, None, None)
        except OSError as error:
            if os.path.lexists(file) and not os.path.exists(file):
                return Entry(shown, None, None)
            raise error

    try:
        with ThreadPoolExecutor(_ASKING) as pool:
            return list(pool.map(entry, (files[at] for at in sampled_positions(len(files)))))
    except Exception as error:
        return without_fingerprint(name, error)
