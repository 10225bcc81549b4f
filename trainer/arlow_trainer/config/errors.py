"""The errors of Arlow that a user can act on, each with the exit code that `arlow` ends with.

* ArlowError           70  base class
  - ConfigError        78  a manifest, an override or an argument is wrong
  - DataError          65  a data set cannot be read
  - StoreError         74  a store cannot be read or written
  - CredentialsError   77  a store or hub refused access
  - LeaseError         73  another live run uses the run URL
  - NonFiniteError      3  the loss or the gradients stayed NaN or Inf
  - DeviceMemoryError   4  a device has too little memory
  - Interrupted        75  the run was asked to stop; its checkpoint is saved

Other packages derive from these where callers catch a special case, such as `MissingObject` of
`storage`.
Any other exception ends `arlow` with 70: an internal error (a bug in Arlow).
"""

from __future__ import annotations

from enum import IntEnum

from arlow_trainer.config.shown_text import redact_urls


class ExitCode(IntEnum):
    """Exit codes of `arlow`: those of sysexits.h where one fits, own ones below 64 otherwise."""

    FINISHED = 0
    NON_FINITE = 3
    OUT_OF_MEMORY = 4
    DATA = 65
    INTERNAL = 70
    LEASE = 73
    STORE = 74
    INTERRUPTED = 75
    CREDENTIALS = 77
    CONFIG = 78


class ArlowError(Exception):
    """An error that is reported to the user without a traceback.

    The message is one or more lines: what was wrong, where (file, field, key), what to do. It goes
    to logs, events and the status, so the credentials of URLs in it are removed.
    """

    exit_code: ExitCode = ExitCode.INTERNAL

    def __init__(self, message: str) -> None:
        super().__init__(redact_urls(message))


class ConfigError(ArlowError):
    """A manifest, an override or an argument of a command is wrong."""

    exit_code = ExitCode.CONFIG


class DataError(ArlowError):
    """A data set cannot be read, is empty, or holds too many broken files."""

    exit_code = ExitCode.DATA


class StoreError(ArlowError):
    """A store of checkpoints or data cannot be read or written, or holds damaged objects."""

    exit_code = ExitCode.STORE


class CredentialsError(ArlowError):
    """A store or hub refused the given credentials, or none were given."""

    exit_code = ExitCode.CREDENTIALS


class LeaseError(ArlowError):
    """Another live run uses the run URL."""

    exit_code = ExitCode.LEASE


class NonFiniteError(ArlowError):
    """The loss or the gradients stayed NaN or Inf."""

    exit_code = ExitCode.NON_FINITE


class DeviceMemoryError(ArlowError):
    """A device has too little memory for the run."""

    exit_code = ExitCode.OUT_OF_MEMORY


class Interrupted(ArlowError):
    """The run was asked to stop; its checkpoint is saved."""

    exit_code = ExitCode.INTERRUPTED
