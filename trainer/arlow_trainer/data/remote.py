"""Reading files behind fsspec, and what goes wrong on the way in words."""

from __future__ import annotations

from typing import Any

from tenacity import retry, retry_if_not_exception_type, stop_after_attempt, wait_exponential

from arlow_trainer.config.errors import ArlowError, CredentialsError, DataError

from .decode import BrokenSample

_ATTEMPTS = 4


def read_remote(name: str, filesystem: Any, path: str) -> bytes:
    """Returns a file's bytes, trying again where a store hiccups.

    Raises BrokenSample when the file is gone, DataError or CredentialsError when the store is.
    """
    try:
        return _fetch(filesystem, path)
    except FileNotFoundError:
        raise BrokenSample(name, "the file is gone") from None
    except Exception as error:
        raise unreachable(name, error) from error


def unreachable(place: str, error: Exception) -> ArlowError:
    """Returns what to tell the user when a store refused or could not be reached."""
    reason = summary(error)
    # botocore, google-auth and azure-core share no base class, but their names.
    names = {base.__name__ for base in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    refused = isinstance(error, PermissionError) or status in (401, 403)
    if refused or any("Credential" in name or "Authentication" in name for name in names):
        return CredentialsError(
            f"{place}: access was refused: {reason}; check the credentials (AWS_*, "
            "GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_*, HF_TOKEN) or the file's permissions"
        )
    return DataError(
        f"{place}: cannot be read: {reason}; check the path, the endpoint and the network"
    )


def empty_set(place: str, modality: str) -> DataError:
    """Returns what to tell the user when a set holds nothing."""
    return DataError(
        f"{place} is empty; point data.{modality}s.path or its split at a set with {modality}s"
    )


def summary(error: BaseException) -> str:
    """Returns the first line of an error's innermost cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


# A store's hiccup must not become a skipped sample: that would change the training.
@retry(
    retry=retry_if_not_exception_type((FileNotFoundError, PermissionError)),
    stop=stop_after_attempt(_ATTEMPTS),
    wait=wait_exponential(max=20),
    reraise=True,
)
def _fetch(filesystem: Any, path: str) -> bytes:
    content: bytes = filesystem.cat_file(path)
    return content
