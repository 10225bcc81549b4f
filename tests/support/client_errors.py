"""Exceptions of the stores' client libraries, as they raise them, and what each means."""

from __future__ import annotations

import errno
import socket

import aiohttp
import azure.core.exceptions as azure
import botocore.exceptions as boto
import gcsfs.retry
import google.auth.exceptions
import requests
from fsspec.asyn import FSTimeoutError
from yarl import URL

from arlow_trainer.storage.failures import Failure


def client_error(code: str, status: int = 400) -> boto.ClientError:
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return boto.ClientError(response, "PutObject")


def azure_error(status: int, code: str = "") -> azure.HttpResponseError:
    error = azure.HttpResponseError(message="refused")
    error.status_code, error.error_code = status, code
    return error


def aiohttp_error(status: int) -> aiohttp.ClientResponseError:
    url = URL("http://x")
    request = aiohttp.RequestInfo(url, "GET", headers={}, real_url=url)  # type: ignore[arg-type]
    return aiohttp.ClientResponseError(request, (), status=status, message="refused")


def requests_error(status: int) -> requests.exceptions.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.exceptions.HTTPError(f"{status} refused", response=response)


def caused(outer: Exception, inner: BaseException) -> Exception:
    outer.__cause__ = inner
    return outer


CLIENT_ERRORS: list[tuple[Exception, Failure]] = [
    (client_error("AccessDenied", 403), Failure.CREDENTIALS),
    (client_error("InvalidAccessKeyId", 403), Failure.CREDENTIALS),
    (client_error("ExpiredToken", 400), Failure.EXPIRED),
    (client_error("RequestExpired", 403), Failure.EXPIRED),
    (client_error("InvalidToken", 400), Failure.EXPIRED),
    (client_error("400", 400), Failure.CREDENTIALS),
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
    (client_error("Unheard", 599), Failure.BUSY),
    (boto.NoCredentialsError(), Failure.CREDENTIALS),
    (boto.PartialCredentialsError(provider="env", cred_var="x"), Failure.CREDENTIALS),
    (boto.ProfileNotFound(profile="x"), Failure.CREDENTIALS),
    (boto.SSOTokenLoadError(error_msg="x"), Failure.CREDENTIALS),
    (boto.EndpointConnectionError(endpoint_url="http://x"), Failure.NETWORK),
    (boto.ConnectTimeoutError(endpoint_url="http://x"), Failure.NETWORK),
    (boto.ReadTimeoutError(endpoint_url="http://x"), Failure.NETWORK),
    (boto.ConnectionClosedError(endpoint_url="http://x"), Failure.NETWORK),
    (aiohttp.ClientConnectionError("x"), Failure.NETWORK),
    (aiohttp.ClientPayloadError("x"), Failure.NETWORK),
    (aiohttp_error(400), Failure.OTHER),
    (aiohttp_error(401), Failure.CREDENTIALS),
    (aiohttp_error(404), Failure.MISSING),
    (aiohttp_error(425), Failure.BUSY),
    (aiohttp_error(503), Failure.BUSY),
    (FSTimeoutError(), Failure.NETWORK),
    (socket.gaierror(-2, "Name or service not known"), Failure.NETWORK),
    (requests.exceptions.ConnectionError("x"), Failure.NETWORK),
    (requests_error(403), Failure.CREDENTIALS),
    (requests_error(410), Failure.OTHER),
    (requests_error(502), Failure.BUSY),
    (gcsfs.retry.HttpError({"code": 401, "message": "Invalid"}), Failure.CREDENTIALS),
    (gcsfs.retry.HttpError({"code": 429, "message": "Rate"}), Failure.BUSY),
    (gcsfs.retry.ChecksumError("x"), Failure.NETWORK),
    (OSError("Forbidden: https://storage\nno"), Failure.CREDENTIALS),
    (google.auth.exceptions.DefaultCredentialsError("x"), Failure.CREDENTIALS),
    (google.auth.exceptions.RefreshError("x"), Failure.CREDENTIALS),
    (
        google.auth.exceptions.RefreshError("invalid_grant: Token has been expired or revoked."),
        Failure.EXPIRED,
    ),
    (boto.UnauthorizedSSOTokenError(), Failure.EXPIRED),
    (google.auth.exceptions.TransportError("x"), Failure.NETWORK),
    (
        caused(
            google.auth.exceptions.RefreshError("x"), google.auth.exceptions.TransportError("x")
        ),
        Failure.NETWORK,
    ),
    (azure.ClientAuthenticationError("x"), Failure.CREDENTIALS),
    (azure.ServiceRequestError("x"), Failure.NETWORK),
    (azure_error(403, "AuthorizationFailure"), Failure.CREDENTIALS),
    (azure_error(404, "ContainerNotFound"), Failure.CONTAINER),
    (azure_error(404, "BlobNotFound"), Failure.MISSING),
    (azure_error(503, "ServerBusy"), Failure.BUSY),
    (OSError(errno.ENOSPC, "No space left on device"), Failure.FULL),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), Failure.FULL),
    (OSError(errno.EIO, "Input/output error"), Failure.BUSY),
    (OSError(errno.EMFILE, "Too many open files"), Failure.BUSY),
    (OSError(errno.EINVAL, "Invalid argument"), Failure.OTHER),
    (OSError("no route"), Failure.UNKNOWN),
    (boto.BotoCoreError(), Failure.UNKNOWN),
    (Exception("I/O error: No space left on device (os error 28)"), Failure.FULL),
    (ConnectionResetError(errno.ECONNRESET, "reset"), Failure.NETWORK),
    (FileNotFoundError("x"), Failure.MISSING),
    (PermissionError("x"), Failure.CREDENTIALS),
    (FileExistsError("x"), Failure.EXISTS),
    (NotADirectoryError(errno.ENOTDIR, "Not a directory"), Failure.OTHER),
    (ValueError("x"), Failure.OTHER),
    (KeyError("x"), Failure.OTHER),
]
