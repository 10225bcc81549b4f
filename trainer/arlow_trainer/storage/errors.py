"""Turns a failure of a store into a message: which URL, why, and what to do."""

from __future__ import annotations

import errno
from pathlib import Path

from arlow_trainer.config.errors import ArlowError, CredentialsError, StoreError
from arlow_trainer.storage.failures import Failure, chain, classify, describe
from arlow_trainer.storage.local_files import NotRegularFile

_OF_ANOTHER_KIND = (errno.EISDIR, errno.ENOTDIR, errno.ENXIO)
_OF_THE_FILE = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.EIO)


class MissingObject(StoreError):
    """An object that was asked for does not exist."""


class UnreadableObject(StoreError):
    """Something has an object's name and cannot be read as a file, while the store itself works.

    A folder, a pipe or a device, a file without permission or on a failing part of a disk.
    """


class OversizedObject(UnreadableObject):
    """An object that should be small is larger than anything that Arlow writes there."""


def as_store_error(
    error: Exception, doing: str, url: str, scheme: str, *, worked: bool = False
) -> ArlowError:
    """Returns the error to raise where `doing` ("read", "write", ...) at `url` met `error`.

    `worked`: whether the same was done at this store before, so that credentials that are refused
    now have ended.
    """
    if isinstance(error, ImportError):
        return StoreError(
            f"Cannot {doing} {url}: the package for {scheme}:// is not installed ({error}). "
            "Install arlow-pretrain with the extra `trainer`."
        )
    reason = classify(error, local=scheme in ("file", "memory"))
    missing = reason is Failure.MISSING and doing == "read"
    # Several libraries give nothing but the name as the text of "not found".
    cause = "there is no such object" if missing else describe(error)
    if reason is Failure.CREDENTIALS and worked:
        reason = Failure.EXPIRED
        cause = f"session credentials expired or were withdrawn ({cause.rstrip('.')})"
    elif reason is Failure.EXPIRED:
        cause = f"session credentials expired ({cause.rstrip('.')})"
    in_the_way = scheme == "file" and _is_of_another_kind(error)
    if in_the_way:
        reason = Failure.EXISTS
    message = failure_message(doing, url, reason, cause)
    if reason.of_credentials or reason is Failure.CLOCK:
        return CredentialsError(message)
    if missing:
        return MissingObject(message)
    of_the_file = scheme == "file" and getattr(error, "errno", None) in _OF_THE_FILE
    if doing == "read" and (in_the_way or of_the_file):
        return UnreadableObject(message)
    return StoreError(message)


def _is_of_another_kind(error: BaseException) -> bool:
    """Whether there is no file, or no folder, where there should be one."""
    return any(
        isinstance(each, NotRegularFile) or getattr(each, "errno", None) in _OF_ANOTHER_KIND
        for each in chain(error)
    )


def local_error(path: Path, error: Exception) -> StoreError:
    """Returns the error to raise when a file on this machine cannot be written."""
    return StoreError(
        failure_message("write", str(path), classify(error, local=True), describe(error))
    )


def failure_message(doing: str, url: str, reason: Failure, cause: str) -> str:
    """Returns one line: what could not be done where, why, and what to do about it."""
    scheme = url.partition("://")[0] if "://" in url else "file"
    return f"Cannot {doing} {url}: {cause.rstrip('.')}. {_remedy(reason, scheme, doing)}"


_CREDENTIALS_FROM = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "abfs": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


def _remedy(reason: Failure, scheme: str, doing: str) -> str:
    right = "read" if doing in ("read", "list") else "write"
    names = _CREDENTIALS_FROM.get(scheme, "the store's credentials")
    remedies = {
        Failure.CREDENTIALS: f"Set {names} (or the store's options) to an identity that may "
        "read, write, list and delete there; options.anonymous is for buckets that all may read, "
        "options.requesterPays for those whose readers pay, options.profile names another profile.",
        Failure.EXPIRED: f"They were read again, without success. Renew {names}, or give an "
        "identity that renews itself, and start again.",
        Failure.CLOCK: "Set this machine's clock: the server refuses requests from another time.",
        Failure.MISSING: "Check the URL and the name.",
        Failure.CONTAINER: "Create the bucket (container) first, or correct the URL: "
        "it is never created for you.",
        Failure.FULL: "Free some space or raise the quota, or choose another folder or bucket.",
        Failure.READ_ONLY: f"Give this user the right to {right} there, or choose another folder.",
        Failure.NETWORK: "Check that the server runs and can be reached from here"
        + (" (AWS_ENDPOINT_URL)." if scheme == "s3" else "."),
        Failure.BUSY: "The store stayed unable to answer; try again later.",
        Failure.EXISTS: "Something else has that name: move it, or choose another name.",
        Failure.UNSUPPORTED: "The server lacks a function that is needed; use another store.",
        Failure.UNKNOWN: "Check the URL and the store's options.",
        Failure.OTHER: "Check the URL and the store's options.",
    }
    return remedies[reason]
