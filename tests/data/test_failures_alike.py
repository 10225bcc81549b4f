"""The same failure means the same to the checkpoint store and to the data: one classification.

Both read through a file system that raises what the client libraries raise.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem
from fsspec.registry import _registry

from arlow_trainer.config import ExitCode, SourceSection
from arlow_trainer.config.errors import CredentialsError, DataError, StoreError
from arlow_trainer.data import BrokenSample
from arlow_trainer.data.file_names import store_names
from arlow_trainer.data.files import MediaSource
from arlow_trainer.data.folder import open_folder
from arlow_trainer.storage.errors import MissingObject
from arlow_trainer.storage.failures import Failure
from arlow_trainer.storage.store import Store
from support.client_errors import CLIENT_ERRORS
from support.quick_retries import quick_retries

# What a failure becomes at the store and in the data. They differ only where a data set is named
# wrongly (exit code 65, not 74) and where a single file is missing, which is skipped.
ALIKE = {
    Failure.CREDENTIALS: CredentialsError,
    Failure.EXPIRED: CredentialsError,
    Failure.CLOCK: CredentialsError,
    Failure.NETWORK: StoreError,
    Failure.BUSY: StoreError,
    Failure.UNKNOWN: StoreError,
}
APART = {
    Failure.MISSING: (MissingObject, BrokenSample),
    Failure.CONTAINER: (StoreError, DataError),
    Failure.FULL: (StoreError, DataError),
    Failure.EXISTS: (StoreError, DataError),
    Failure.UNSUPPORTED: (StoreError, DataError),
    Failure.OTHER: (StoreError, DataError),
}
SAME = [(error, failure) for error, failure in CLIENT_ERRORS if failure in ALIKE]
# A path through a file is a file that is gone.
OTHERS = [
    (error, failure)
    for error, failure in CLIENT_ERRORS
    if failure in APART and not isinstance(error, NotADirectoryError)
]


class FailingFileSystem(AsyncFileSystem):  # type: ignore[misc]
    """A store over a network whose every answer is `error`."""

    protocol = "gs"
    cachable = False
    error: Exception
    calls = 0

    async def _fail(self, *_: object, **__: object) -> Any:
        type(self).calls += 1
        raise self.error

    _cat_file = _find = _ls = _info = _fail


@pytest.fixture(autouse=True)
def _failing_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_registry, "gs", FailingFileSystem)
    # The store's few attempts wait as well.
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=lambda seconds: None))
    quick_retries(monkeypatch)
    assert fsspec.get_filesystem_class("gs") is FailingFileSystem


def outcome(operation: Callable[[], object], error: Exception) -> tuple[Exception, bool]:
    """The exception that an operation ends with, and whether it was tried more than once."""
    FailingFileSystem.error, FailingFileSystem.calls = error, 0
    with pytest.raises(Exception) as raised:  # noqa: PT011 - compared by its class
        operation()
    return raised.value, FailingFileSystem.calls > 1


def reads() -> tuple[Callable[[], object], Callable[[], object]]:
    source = MediaSource("gs://bucket/set", "gs://bucket/set", store_names(["a.jpg"]))
    return lambda: Store("gs://bucket/run").read_bytes("a"), lambda: source.read(0)


def listings() -> tuple[Callable[[], object], Callable[[], object]]:
    section = SourceSection(path="gs://bucket/set")
    return lambda: Store("gs://bucket/run").list(), lambda: open_folder(section, "image")


def name(value: object) -> str:
    return value.name if isinstance(value, Failure) else type(value).__name__


def test_enough_exceptions_are_tried() -> None:
    assert len(SAME) >= 30
    assert {failure for _, failure in SAME} == set(ALIKE)
    assert {failure for _, failure in OTHERS} == set(APART)
    assert set(ALIKE) | set(APART) == set(Failure) - {Failure.READ_ONLY}


@pytest.mark.parametrize("routes", [reads, listings])
@pytest.mark.parametrize(("error", "failure"), SAME, ids=name)
def test_the_data_and_the_store_end_alike(
    error: Exception, failure: Failure, routes: Callable[[], tuple[Callable[[], object], ...]]
) -> None:
    (store, store_retried), (data, data_retried) = (outcome(way, error) for way in routes())
    assert type(store) is type(data) is ALIKE[failure]
    # Credentials that are refused are read again once.
    again = failure.transient or failure.of_credentials
    assert store_retried is again
    assert data_retried is (again or failure is Failure.UNKNOWN)
    code = ExitCode.CREDENTIALS if ALIKE[failure] is CredentialsError else ExitCode.STORE
    assert {store.exit_code, data.exit_code} == {code}


@pytest.mark.parametrize(("error", "failure"), OTHERS, ids=name)
def test_what_is_the_data_sets_fault_ends_as_such(error: Exception, failure: Failure) -> None:
    (store, store_retried), (data, data_retried) = (outcome(way, error) for way in reads())
    assert (type(store), type(data)) == APART[failure]
    assert not store_retried
    assert not data_retried
