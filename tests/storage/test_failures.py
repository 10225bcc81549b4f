"""What the client libraries' exceptions mean: their own classes, as they raise them."""

from __future__ import annotations

import errno
import socket

import aiohttp
import azure.core.exceptions as azure
import botocore.exceptions as boto
import gcsfs.retry
import google.auth.exceptions
import pytest
import requests
from fsspec.asyn import FSTimeoutError
from s3fs.errors import translate_boto_error

from arlow_trainer.storage.failures import Failure, classify, describe


def client_error(code: str, status: int = 400) -> boto.ClientError:
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return boto.ClientError(response, "PutObject")


def azure_error(status: int, code: str = "") -> azure.HttpResponseError:
    error = azure.HttpResponseError(message="refused")
    error.status_code, error.error_code = status, code
    return error


def caused(outer: Exception, inner: BaseException) -> Exception:
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (client_error("AccessDenied", 403), Failure.CREDENTIALS),
        (client_error("InvalidAccessKeyId", 403), Failure.CREDENTIALS),
        (client_error("403", 403), Failure.CREDENTIALS),
        (client_error("RequestTimeTooSkewed", 403), Failure.CLOCK),
        (client_error("NoSuchBucket", 404), Failure.CONTAINER),
        (client_error("NoSuchKey", 404), Failure.MISSING),
        (client_error("404", 404), Failure.MISSING),
        (client_error("SlowDown", 503), Failure.BUSY),
        (client_error("InternalError", 500), Failure.BUSY),
        (client_error("PreconditionFailed", 412), Failure.EXISTS),
        (client_error("NotImplemented", 501), Failure.UNSUPPORTED),
        (client_error("XMinioStorageFull", 507), Failure.FULL),
        (client_error("Unheard", 400), Failure.OTHER),
        (boto.NoCredentialsError(), Failure.CREDENTIALS),
        (boto.PartialCredentialsError(provider="env", cred_var="x"), Failure.CREDENTIALS),
        (boto.ProfileNotFound(profile="x"), Failure.CREDENTIALS),
        (boto.EndpointConnectionError(endpoint_url="http://x"), Failure.NETWORK),
        (boto.ConnectTimeoutError(endpoint_url="http://x"), Failure.NETWORK),
        (boto.ReadTimeoutError(endpoint_url="http://x"), Failure.NETWORK),
        (boto.ConnectionClosedError(endpoint_url="http://x"), Failure.NETWORK),
        (aiohttp.ClientConnectionError("x"), Failure.NETWORK),
        (aiohttp.ClientPayloadError("x"), Failure.NETWORK),
        (FSTimeoutError(), Failure.NETWORK),
        (socket.gaierror(-2, "Name or service not known"), Failure.NETWORK),
        (requests.exceptions.ConnectionError("x"), Failure.NETWORK),
        (gcsfs.retry.HttpError({"code": 401, "message": "Invalid"}), Failure.CREDENTIALS),
        (gcsfs.retry.HttpError({"code": 429, "message": "Rate"}), Failure.BUSY),
        (gcsfs.retry.ChecksumError("x"), Failure.NETWORK),
        (OSError("Forbidden: https://storage\nno"), Failure.CREDENTIALS),
        (google.auth.exceptions.DefaultCredentialsError("x"), Failure.CREDENTIALS),
        (google.auth.exceptions.TransportError("x"), Failure.NETWORK),
        (azure.ClientAuthenticationError("x"), Failure.CREDENTIALS),
        (azure.ServiceRequestError("x"), Failure.NETWORK),
        (azure_error(403, "AuthorizationFailure"), Failure.CREDENTIALS),
        (azure_error(404, "ContainerNotFound"), Failure.CONTAINER),
        (azure_error(404, "BlobNotFound"), Failure.MISSING),
        (azure_error(503, "ServerBusy"), Failure.BUSY),
        (OSError(errno.ENOSPC, "No space left on device"), Failure.FULL),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), Failure.FULL),
        (OSError(errno.EIO, "Input/output error"), Failure.BUSY),
        (Exception("I/O error: No space left on device (os error 28)"), Failure.FULL),
        (ConnectionResetError(errno.ECONNRESET, "reset"), Failure.NETWORK),
        (FileNotFoundError("x"), Failure.MISSING),
        (FileExistsError("x"), Failure.EXISTS),
        (ValueError("x"), Failure.OTHER),
    ],
    ids=lambda value: value.name if isinstance(value, Failure) else type(value).__name__,
)
def test_reasons(error: Exception, expected: Failure) -> None:
    assert classify(error, local=False) is expected
    # s3fs and the others wrap what they were told in a plain OSError.
    assert classify(caused(OSError("wrapped"), error), local=False) is expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("SignatureDoesNotMatch", Failure.CREDENTIALS),
        ("RequestTimeTooSkewed", Failure.CLOCK),
        ("NoSuchBucket", Failure.CONTAINER),
        ("NoSuchKey", Failure.MISSING),
        ("PreconditionFailed", Failure.EXISTS),
        ("ServiceUnavailable", Failure.BUSY),
    ],
)
def test_what_s3fs_translates_keeps_its_reason(code: str, expected: Failure) -> None:
    assert classify(translate_boto_error(client_error(code)), local=False) is expected


def test_rights_are_a_folders_here_and_a_persons_elsewhere() -> None:
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
