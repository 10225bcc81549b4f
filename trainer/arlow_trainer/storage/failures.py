"""What an exception of a store's client library means: one pure decision for every scheme.

The client libraries (botocore, aiohttp, gcsfs, google-auth, azure) raise their own classes and wrap
each other's. They are recognised by class name, error code, HTTP status and errno, so that none of
them has to be installed or imported here. Both the checkpoint store and the data sets use it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from enum import Enum

from arlow_trainer.config.shown_text import redact_urls


class Failure(Enum):
    """Why an operation on a store failed."""

    CREDENTIALS = "credentials"
    EXPIRED = "expired"
    """Credentials that were valid for a time, which has ended."""
    CLOCK = "clock"
    MISSING = "missing"
    CONTAINER = "container"
    FULL = "full"
    READ_ONLY = "read-only"
    NETWORK = "network"
    BUSY = "busy"
    EXISTS = "exists"
    UNSUPPORTED = "unsupported"
    UNKNOWN = "unknown"
    """A disk or a client library failed without saying why."""
    OTHER = "other"
    """Neither the store nor the way to it: a wrong request, a wrong setting or a bug."""

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self in (Failure.NETWORK, Failure.BUSY)

    @property
    def of_credentials(self) -> bool:
        """Whether other credentials, or the same ones read again, may help."""
        return self in (Failure.CREDENTIALS, Failure.EXPIRED)


# S3 codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
# Azure codes: https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes
_CODES: dict[str, Failure] = {
    **dict.fromkeys(
        (
            "ExpiredToken",
            "ExpiredTokenException",
            "InvalidToken",
            "InvalidTokenId",
            "RequestExpired",
            "TokenRefreshRequired",
        ),
        Failure.EXPIRED,
    ),
    **dict.fromkeys(
        (
            # An answer to HEAD has no body and hence no code; S3 gives this status to old tokens.
            "400",
            "AccessDenied",
            "AccountProblem",
            "AllAccessDisabled",
            "InvalidAccessKeyId",
            "InvalidClientTokenId",
            "InvalidIdentityToken",
            "InvalidSecurity",
            "SignatureDoesNotMatch",
            "AuthenticationFailed",
            "AuthorizationFailure",
            "AuthorizationPermissionMismatch",
            "NoAuthenticationInformation",
            "InvalidAuthenticationInfo",
        ),
        Failure.CREDENTIALS,
    ),
    "RequestTimeTooSkewed": Failure.CLOCK,
    "NoSuchKey": Failure.MISSING,
    "BlobNotFound": Failure.MISSING,
    "NoSuchBucket": Failure.CONTAINER,
    "ContainerNotFound": Failure.CONTAINER,
    "FilesystemNotFound": Failure.CONTAINER,
    "QuotaExceeded": Failure.FULL,
    "XMinioStorageFull": Failure.FULL,
    "InsufficientStorage": Failure.FULL,
    "PreconditionFailed": Failure.EXISTS,
    "BlobAlreadyExists": Failure.EXISTS,
    "NotImplemented": Failure.UNSUPPORTED,
    **dict.fromkeys(
        (
            "InternalError",
            "OperationAborted",
            "RequestTimeout",
            "ServerBusy",
            "ServiceUnavailable",
            "SlowDown",
            "Throttling",
        ),
        Failure.BUSY,
    ),
}

_STATUSES: dict[int, Failure] = {
    401: Failure.CREDENTIALS,
    403: Failure.CREDENTIALS,
    404: Failure.MISSING,
    408: Failure.BUSY,
    409: Failure.BUSY,
    412: Failure.EXISTS,
    425: Failure.BUSY,
    429: Failure.BUSY,
    500: Failure.BUSY,
    501: Failure.UNSUPPORTED,
    502: Failure.BUSY,
    503: Failure.BUSY,
    504: Failure.BUSY,
    507: Failure.FULL,
}

_CLASSES: dict[str, Failure] = {
    "CredentialsEnded": Failure.EXPIRED,
    **dict.fromkeys(
        (
            "NoCredentialsError",
            "PartialCredentialsError",
            "CredentialRetrievalError",
            "LoginError",
            "NoAuthTokenError",
            "ProfileNotFound",
            "SSOError",
            "TokenRetrievalError",
            "GoogleAuthError",
            "ClientAuthenticationError",
            "CredentialUnavailableError",
        ),
        Failure.CREDENTIALS,
    ),
    "ResourceExistsError": Failure.EXISTS,
    **dict.fromkeys(
        (
            "HTTPClientError",
            "EndpointConnectionError",
            "ClientConnectionError",
            "ClientPayloadError",
            "ServiceRequestError",
            "ServiceResponseError",
            "IncompleteRead",
            "IncompleteReadError",
            "ResponseStreamingError",
            "ChecksumError",
            "RequestException",
            "gaierror",
            "TimeoutError",
            "TransportError",
        ),
        Failure.NETWORK,
    ),
}

# What a library raises for a wrong request and Python for a bug, whatever the store's state.
NOT_STORE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    IsADirectoryError,
    LookupError,
    MemoryError,
    NotADirectoryError,
    RuntimeError,
    TypeError,
    ValueError,
)

_ERRNOS: dict[int, Failure] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), Failure.FULL),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), Failure.READ_ONLY),
    **dict.fromkeys(
        (
            errno.EBUSY,
            errno.EAGAIN,
            errno.EINTR,
            errno.EIO,
            errno.EMFILE,
            errno.ENFILE,
            errno.ENOMEM,
        ),
        Failure.BUSY,
    ),
    **dict.fromkeys(
        (
            errno.ECONNREFUSED,
            errno.ECONNRESET,
            errno.ECONNABORTED,
            errno.EPIPE,
            errno.ETIMEDOUT,
            errno.EHOSTUNREACH,
            errno.ENETUNREACH,
            errno.ESTALE,
        ),
        Failure.NETWORK,
    ),
    errno.ENOENT: Failure.MISSING,
    errno.EEXIST: Failure.EXISTS,
    **dict.fromkeys((errno.EINVAL, errno.ENAMETOOLONG, errno.ENOSYS), Failure.OTHER),
}

# Libraries that lose the code and keep only a text.
_TEXTS: tuple[tuple[str, Failure], ...] = (
    ("No space left on device", Failure.FULL),
    ("File too large", Failure.FULL),
    ("No such container", Failure.CONTAINER),
    ("Azure Container does not exist", Failure.CONTAINER),
    ("The specified bucket does not exist", Failure.CONTAINER),
    ("token has expired", Failure.EXPIRED),
    ("token is expired", Failure.EXPIRED),
    ("Token has been expired", Failure.EXPIRED),
    ("profile has expired", Failure.EXPIRED),
    ("Forbidden:", Failure.CREDENTIALS),
    ("Must provide either a connection_string", Failure.CREDENTIALS),
    ("unable to connect to account", Failure.CREDENTIALS),
)


# An exact reason in the chain is preferred: a bare PermissionError or FileNotFoundError is what a
# wrapper keeps of one, and a ValueError may be raised on account of one.
_VAGUENESS = {Failure.MISSING: 1, Failure.READ_ONLY: 1, Failure.OTHER: 2}


def classify(error: BaseException, *, local: bool) -> Failure:
    """The most exact reason found in `error` and in what it was raised from.

    On a local store a permission problem is a `READ_ONLY` folder, elsewhere it is `CREDENTIALS`.
    `UNKNOWN` where nothing in the chain says why.
    """
    reasons = [reason for each in chain(error) if (reason := _reason(each)) is not None]
    reason = min(reasons, key=lambda each: _VAGUENESS.get(each, 0), default=Failure.UNKNOWN)
    if reason is Failure.READ_ONLY and not local:
        return Failure.CREDENTIALS
    return reason


def describe(error: BaseException) -> str:
    """One line that says what went wrong, without an empty text or a bare class name alone."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        text = error.strerror
    return redact_urls(text) or type(error).__name__


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and what it was raised from, the outermost first."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        context = None if following.__suppress_context__ else following.__context__
        following = following.__cause__ or context


def _reason(error: BaseException) -> Failure | None:
    code, status = _code_and_status(error)
    if code in _CODES:
        return _CODES[code]
    text = str(error)
    for part, failure in _TEXTS:
        if part in text:
            return failure
    if status in _STATUSES:
        return _STATUSES[status]
    by_class = _reason_of_class(error)
    # A server that answered was reached, though some libraries call every failure one of requests.
    if status is not None and status >= 400 and by_class is not Failure.CREDENTIALS:
        return Failure.OTHER if status < 500 else Failure.BUSY
    return by_class if by_class is not None else _reason_of_builtin(error)


def _reason_of_class(error: BaseException) -> Failure | None:
    names = [each.__name__ for each in type(error).__mro__]
    reason = next((_CLASSES[name] for name in names if name in _CLASSES), None)
    # botocore, google-auth, azure-core and paramiko share no base class, but these words.
    if reason is None and any("Credential" in n or "Authentication" in n for n in names):
        reason = Failure.CREDENTIALS
    if reason is Failure.CREDENTIALS and error.__cause__ is not None:
        # google-auth: a token that could not be refreshed because its server was out of reach.
        cause = classify(error.__cause__, local=False)
        return cause if cause.transient else reason
    return reason


def _code_and_status(error: BaseException) -> tuple[str, int | None]:
    """Error code and HTTP status, from wherever the client libraries and requests keep them."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        code = str(response.get("Error", {}).get("Code", ""))
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return code, status if isinstance(status, int) else _as_status(code)
    code = str(getattr(error, "error_code", "") or "")
    for carrier, name in (
        (error, "status_code"),
        (error, "status"),
        (error, "code"),
        (response, "status_code"),
    ):
        status = _as_status(getattr(carrier, name, None))
        if status is not None:
            return code, status
    return code, None


def _as_status(value: object) -> int | None:
    text = str(value)
    return int(text) if text.isdigit() and len(text) == 3 else None


def _reason_of_builtin(error: BaseException) -> Failure | None:
    if isinstance(error, OSError) and error.errno == errno.EIO and error.__cause__ is not None:
        # What s3fs makes of every error code that it does not know.
        return None
    if isinstance(error, OSError) and error.errno in _ERRNOS:
        return _ERRNOS[error.errno]
    if isinstance(error, PermissionError):
        return Failure.READ_ONLY
    if isinstance(error, FileNotFoundError):
        return Failure.MISSING
    if isinstance(error, FileExistsError):
        return Failure.EXISTS
    if isinstance(error, TimeoutError | ConnectionError):
        return Failure.NETWORK
    return Failure.OTHER if isinstance(error, NOT_STORE_ERRORS) else None
