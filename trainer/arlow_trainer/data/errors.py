"""The errors to raise where a data set or one of its files cannot be read."""

from __future__ import annotations

import errno
from typing import Literal

from arlow_trainer.config.errors import ArlowError, CredentialsError, DataError, StoreError
from arlow_trainer.config.shown_text import redact_urls
from arlow_trainer.storage.failures import Failure, classify


def access_error(
    name: str, error: Exception, action: Literal["read", "written"] = "read"
) -> ArlowError:
    """Returns the error to raise where a disk or store did not let `name` be read or written.

    CredentialsError where access was refused, StoreError where the same request may succeed later,
    DataError otherwise.
    """
    cause = root_cause(error)
    # Of a local file, too: it needs another user, not another data set.
    reason = classify(error, local=False)
    if reason is Failure.CLOCK:
        return CredentialsError(f"{name}: access was refused: {cause}; set this machine's clock")
    read_only = isinstance(error, OSError) and error.errno == errno.EROFS
    if reason.of_credentials and not read_only:
        refused = (
            "session credentials expired" if reason is Failure.EXPIRED else "access was refused"
        )
        return CredentialsError(
            f"{name}: {refused}: {cause}; check the credentials (AWS_*, "
            "GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_*, HF_TOKEN), the set's `options` "
            "(anonymous, profile, requesterPays), or the file's permissions"
        )
    kind = StoreError if reason.transient or reason is Failure.UNKNOWN else DataError
    return kind(
        f"{name}: cannot be {action}: {cause}; check the path, the endpoint and the network"
    )


def empty_set(path: str, path_setting: str, split_setting: str) -> DataError:
    """Returns the error to raise where a set holds nothing; the settings are those that name it."""
    return DataError(f"{path} is empty; name another set with {path_setting} or {split_setting}")


def root_cause(error: BaseException) -> str:
    """Returns the first line of the innermost exception that `error` was raised from.

    The name of its class where it has no text.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return redact_urls(lines[0]) if lines else type(error).__name__
