"""The file names of a set, however many, outside of the processes' own memory."""

from __future__ import annotations

import mmap
import os
import tempfile
from array import array
from collections.abc import Iterable, Sequence
from multiprocessing.reduction import DupFd
from typing import Any, BinaryIO, overload

from arlow_trainer.config.errors import DataError

_ITEM = array("Q").itemsize


class FileNames(Sequence[str]):
    """Names in a temporary file that a rank and its decoding processes map; see `keep_names`."""

    def __init__(self, file: BinaryIO, count: int) -> None:
        self._file = file
        self._mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        # Where each name ends, after a zero.
        self._ends = memoryview(self._mapped)[-(count + 1) * _ITEM :].cast("Q")

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        if not 0 <= place < len(self):
            raise IndexError(place)
        return os.fsdecode(self._mapped[self._ends[place] : self._ends[place + 1]])

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (DupFd(self._file.fileno()), len(self))


def keep_names(names: Iterable[str]) -> FileNames:
    """Writes names to a temporary file, at eight bytes of memory each meanwhile.

    The file leaves its folder as soon as it is made and is handed on by its descriptor, so that
    nothing remains however the processes end. Raises DataError where there is no room for it.
    """
    ends = array("Q", [0])
    try:
        file = tempfile.TemporaryFile(prefix="arlow-names-")  # noqa: SIM115 - FileNames holds it
        for name in names:
            text = os.fsencode(name)
            file.write(text)
            ends.append(ends[-1] + len(text))
        file.write(ends.tobytes())
        file.flush()
    except OSError as error:
        raise DataError(
            f"the names of a set's files cannot be kept in the temporary folder: {error}; make "
            "room in it, or name another in TMPDIR"
        ) from error
    return FileNames(file, len(ends) - 1)


def _received(descriptor: Any, count: int) -> FileNames:
    return FileNames(os.fdopen(descriptor.detach(), "rb"), count)
