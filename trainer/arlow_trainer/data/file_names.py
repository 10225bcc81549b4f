"""File names, however many, outside the memory of the processes."""

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
    """Names in a temporary file that a rank and its decoding processes map; see `store_names`."""

    def __init__(self, file: BinaryIO, count: int) -> None:
        self._file = file
        self._mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        # Where each name ends, after a zero.
        self._ends = memoryview(self._mapped)[-(count + 1) * _ITEM :].cast("Q")

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return os.fsdecode(self._mapped[self._ends[index] : self._ends[index + 1]])

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (DupFd(self._file.fileno()), len(self))


def store_names(names: Iterable[str]) -> FileNames:
    """Writes names to a temporary file, which takes eight bytes of memory for each meanwhile.

    The file has no name in its folder and is passed on by its descriptor, so that nothing remains
    however the processes end. Raises DataError where the temporary folder is full or missing.
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
            f"the names of a set's files cannot be stored in the temporary folder: {error}; free "
            "some space there, or name another in TMPDIR"
        ) from error
    return FileNames(file, len(ends) - 1)


def _received(descriptor: Any, count: int) -> FileNames:
    return FileNames(os.fdopen(descriptor.detach(), "rb"), count)
