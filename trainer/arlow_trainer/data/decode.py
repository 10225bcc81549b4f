"""A sample from its file or bytes: reading it, and decoding an image."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from PIL import Image, UnidentifiedImageError

from arlow_trainer.config.errors import ArlowError
from arlow_trainer.config.shown_text import redact_urls
from arlow_trainer.data.errors import access_error
from arlow_trainer.data.fingerprint import Entry
from arlow_trainer.data.formats import register_decoders
from arlow_trainer.data.png import without_side_data
from arlow_trainer.model.rgb import to_rgb
from arlow_trainer.storage.failures import Failure, classify
from arlow_trainer.storage.local_files import open_regular
from arlow_trainer.storage.remote_files import RemoteFile, open_file
from arlow_trainer.storage.retries import with_retries

T = TypeVar("T")

MAX_IMAGE_BYTES = 512 * 2**20
# Of all scans of a JPEG together: half a minute. A scan that changes nothing has 31 bytes, and a
# photograph some ten scans.
MAX_SCANNED_PIXELS = 10**10
_JPEG_SCAN = b"\xff\xda"
# What the opening of a file fails with on its own account, whatever the state of its disk.
_OF_THE_FILE = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR),
    *(errno.EINVAL, errno.ENXIO, errno.ENODEV, errno.ENAMETOOLONG, errno.EOVERFLOW),
}


class Source(Protocol):
    """A set of images or videos; picklable, so that decoding processes can open it too."""

    name: str
    """What messages call the set."""

    def __len__(self) -> int:
        """Samples of the set."""

    def read(self, position: int) -> RawSample:
        """Returns one undecoded sample.

        Raises BrokenSample when there is nothing to decode, StoreError when the set is out of reach
        for minutes, CredentialsError when access is refused, DataError otherwise.
        """

    def entries(self) -> list[Entry]:
        """Returns a bounded sample of the set's files as a listing describes them, without reading
        them; none where that fails."""


@dataclass(frozen=True)
class RawSample:
    """An undecoded sample."""

    name: str
    """What messages call it."""
    content: bytes | str | RemoteFile
    """The file's bytes, its path on this machine, or a large file in a store."""


class BrokenSample(ValueError):
    """A sample that is gone or cannot be decoded; the run continues with another."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        # Checkpoints, events and logs repeat it.
        self.reason = redact_urls(reason)

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


# Reading


def read_sample(name: str, read: Callable[[], T]) -> T:
    """Returns what `read` does, repeated for minutes while a disk or store hiccups.

    A hiccup must not become a skipped sample: that would change the training.

    Raises BrokenSample when the file is gone, StoreError when it is out of reach for
    minutes, CredentialsError when access is refused, DataError for any other error of a disk or
    store; and whatever else `read` raises, unchanged.
    """
    try:
        return with_retries(name, read)
    except NotADirectoryError:
        raise BrokenSample(name, "the file is gone") from None
    except (ArlowError, BrokenSample):
        raise
    except Exception as error:
        reason = classify(error, local=False)
        if reason is Failure.MISSING:
            raise BrokenSample(name, "the file is gone") from None
        if reason is Failure.OTHER and not isinstance(error, OSError):
            raise
        raise access_error(name, error) from error


def read_remote(name: str, read: Callable[[], T]) -> T:
    """Returns what `read` does with a file in a store. Raises as `read_sample`, no other errors."""
    try:
        return read_sample(name, read)
    except (ArlowError, BrokenSample, MemoryError):
        raise
    except Exception as error:  # such as a ValueError for a URL that no library takes
        raise access_error(name, error) from error


def read_remote_sample(name: str, fs: Any, path: str) -> RawSample:
    """Reads a file behind an fsspec file system, the beginning of one that is larger than a part.

    Raises as `read_sample`, but no other errors.
    """

    def read() -> bytes | RemoteFile:
        try:
            return open_file(fs, path)
        except IsADirectoryError:
            raise BrokenSample(name, "is a folder") from None

    return RawSample(name, read_remote(name, read))


def open_sample(name: str, path: Path) -> io.FileIO:
    """Opens a local file. Raises BrokenSample where it is the file's own fault; else OSError.

    It is gone, nobody may read it, its links lead in a circle, or it is a folder or a device.
    """
    try:
        return open_regular(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise BrokenSample(name, "the file is gone") from None
        if error.errno in _OF_THE_FILE:
            raise BrokenSample(name, error.strerror or str(error)) from None
        raise


# Decoding


def decode_image(raw: RawSample) -> Image.Image:
    """Decodes an image to RGB, upright by its EXIF orientation.

    Side data that is damaged or too large (a colour profile, texts) does not matter where the
    pixels are whole. Raises BrokenSample, or what `read_sample` does where its file cannot be read.
    """
    content = _bytes_of(raw)
    try:
        return _decode_image(content)
    except MemoryError:
        raise
    except Exception as error:  # what damaged bytes raise depends on where they are damaged
        kept = without_side_data(content)
        if kept is not None:
            try:
                return _decode_image(kept)
            except MemoryError:
                raise
            except Exception:
                pass
        reason = str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = "not an image that Pillow can read" if content else "the file is empty"
        raise BrokenSample(raw.name, reason) from error


def _bytes_of(raw: RawSample) -> bytes:
    content = raw.content
    if isinstance(content, bytes):
        return content

    def check(size: int) -> None:
        if size > MAX_IMAGE_BYTES:
            raise BrokenSample(raw.name, f"has {size:,} bytes, more than {MAX_IMAGE_BYTES:,}")

    if isinstance(content, RemoteFile):
        check(content.size)
        return read_remote(raw.name, content.readall)
    path = Path(content)

    def read() -> bytes:
        with open_sample(raw.name, path) as file:
            check(os.fstat(file.fileno()).st_size)
            return file.read()

    return read_sample(raw.name, read)


def _decode_image(content: bytes) -> Image.Image:
    register_decoders()
    with Image.open(io.BytesIO(content)) as image:
        if image.format in ("JPEG", "MPO"):
            scans = content.count(_JPEG_SCAN)
            if scans * image.width * image.height > MAX_SCANNED_PIXELS:
                raise ValueError(f"has {scans:,} scans of {image.width} x {image.height} pixels")
        image.load()
        return to_rgb(image)
