"""What the client libraries' exceptions mean: their own classes, as they raise them."""

from __future__ import annotations

import errno

import pytest
from fsspec.asyn import FSTimeoutError
from s3fs.errors import translate_boto_error

from arlow_trainer.storage.failures import Failure, classify, describe
from support.client_errors import CLIENT_ERRORS, caused, client_error


@pytest.mark.parametrize(
    ("error", "expected"),
    CLIENT_ERRORS,
    ids=lambda value: value.name if isinstance(value, Failure) else type(value).__name__,
)
def test_reasons(error: Exception, expected: Failure) -> None:
    assert classify(error, local=False) is expected
    # s3fs and the others wrap what they receive in a plain OSError.
    assert classify(caused(OSError("wrapped"), error), local=False) is expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("SignatureDoesNotMatch", Failure.CREDENTIALS),
        ("RequestTimeTooSkewed", Failure.CLOCK),
        ("ExpiredToken", Failure.EXPIRED),
        ("ExpiredTokenException", Failure.EXPIRED),
        ("RequestExpired", Failure.EXPIRED),
        ("InvalidToken", Failure.EXPIRED),
        ("TokenRefreshRequired", Failure.EXPIRED),
        ("NoSuchBucket", Failure.CONTAINER),
        ("NoSuchKey", Failure.MISSING),
        ("PreconditionFailed", Failure.EXISTS),
        ("ServiceUnavailable", Failure.BUSY),
    ],
)
def test_what_s3fs_translates_keeps_its_reason(code: str, expected: Failure) -> None:
    assert classify(translate_boto_error(client_error(code)), local=False) is expected


def test_permission_is_the_folders_on_a_local_store_and_the_users_on_others() -> None:
    for error in (PermissionError("x"), OSError(errno.EACCES, "Permission denied")):
        assert classify(error, local=True) is Failure.READ_ONLY
        assert classify(error, local=False) is Failure.CREDENTIALS
    assert classify(OSError(errno.EROFS, "Read-only file system"), local=True) is Failure.READ_ONLY


def test_only_a_busy_server_and_a_network_are_tried_again() -> None:
    assert {reason for reason in Failure if reason.transient} == {Failure.BUSY, Failure.NETWORK}


def test_a_suppressed_context_does_not_count() -> None:
    error = ValueError("x")
    error.__context__ = OSError(errno.ENOSPC, "full")
    assert classify(error, local=True) is Failure.FULL
    error.__suppress_context__ = True
    assert classify(error, local=True) is Failure.OTHER


def test_descriptions_are_one_line() -> None:
    assert describe(OSError(errno.ENOSPC, "No space left on device", "/x")) == (
        "No space left on device"
    )
    assert describe(ValueError("two\n lines")) == "two lines"
    assert describe(FSTimeoutError()) == "FSTimeoutError"


@pytest.mark.parametrize("name", ["AuthenticationException", "UnknownCredentialError"])
def test_refusals_of_libraries_that_are_not_listed_are_known_by_name(name: str) -> None:
    error = type(name, (Exception,), {})("no")
    assert classify(error, local=False) is Failure.CREDENTIALS
