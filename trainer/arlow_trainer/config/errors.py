"""Failures a user can act on, each with the exit code that `arlow` ends with."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of `arlow`: sysexits.h where one fits, own ones below 64 otherwise."""

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
    """A failure with a cause, a place and a remedy, told to the user without a traceback.

    The message is one or more lines: what was wrong, where (file, field, key), what to do.
    """

    exit_code: ExitCode = ExitCode.INTERNAL


class ConfigError(ArlowError):
    """The run's file or an override is wrong."""

    exit_code = ExitCode.CONFIG


class DataError(ArlowError):
    """A data set cannot be read, is empty, or holds too many broken files."""

    exit_code = ExitCode.DATA


class StoreError(ArlowError):
    """A store of checkpoints or data cannot be read or written, or holds damaged objects."""

    exit_code = ExitCode.STORE


class CredentialsError(ArlowError):
    """A store or hub refused the credentials it was given, or was given none."""

    exit_code = ExitCode.CREDENTIALS


class LeaseError(ArlowError):
    """Another live run holds the run URL."""

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
