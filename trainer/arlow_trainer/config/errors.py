"""The errors of Arlow that a user can act on, each with the exit code that `arlow` ends with.

* ArlowError           70  base class
  - ConfigError        78  a manifest, an override or an argument is wrong
  - DataError          65  a data set cannot be read
  - StoreError         74  a store cannot be read or written
  - CredentialsError   77  a store or hub refused access
  - LeaseError         73  another live run uses the run URL
    - LeaseLost         6  another run took the run URL over during the run
  - NonFiniteError      3  the loss or the gradients stayed NaN or Inf
  - DeviceMemoryError   4  a device has too little memory
  - ProcessKilled       5  a process was killed, most often because host memory ran out
  - Interrupted        75  the run was asked to stop

Other packages derive from these where callers catch a special case, such as `MissingObject` of
`storage`.
Any other exception ends `arlow` with 70: an internal error (a bug in Arlow).
"""

from __future__ import annotations

from enum import IntEnum

from arlow_trainer.config.shown_text import shown


class ExitCode(IntEnum):
    """Exit codes of `arlow`: those of sysexits.h where one fits, own ones below 64 otherwise.

    Attributes:
        cause: the name of this way to end in the termination message; what supervisors go by.
        meaning: what happened.
        remedy: what to do about it in general; the message of the run says it in particular.
    """

    cause: str
    meaning: str
    remedy: str

    def __new__(cls, code: int, cause: str = "", meaning: str = "", remedy: str = "") -> ExitCode:
        """Makes a member of its code and its texts; `ExitCode(code)` finds one by its code."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.cause, member.meaning, member.remedy = cause, meaning, remedy
        return member

    FINISHED = 0, "finished", "The run finished, or the command succeeded.", ""
    USAGE = (
        2,
        "usage",
        "The command line is wrong: an unknown command or option, or an invalid value.",
        "See the command's --help.",
    )
    NON_FINITE = (
        3,
        "nonFiniteLoss",
        "The loss or the gradients stayed NaN or Inf.",
        "Lower the learning rate or clip gradients; the same command resumes from the newest "
        "checkpoint.",
    )
    OUT_OF_MEMORY = (
        4,
        "deviceMemory",
        "A device has too little memory for the run.",
        "Use devices with more memory, more of them, or a smaller model or micro-batch.",
    )
    KILLED = (
        5,
        "outOfMemory",
        "A rank or a decoding process was killed, or found no memory; most often the machine or "
        "the pod ran out of it.",
        "Give the machine or pod more memory, or lower data.workers; the same command resumes "
        "from the newest checkpoint.",
    )
    LEASE_LOST = (
        6,
        "leaseLost",
        "Another run took the run URL over while this one was training.",
        "Keep one of the two runs, or give one another metadata.name.",
    )
    DATA = (
        65,
        "data",
        "A data set cannot be read, is empty, or holds too many broken files.",
        "Repair the data set, or correct spec.training.data.",
    )
    INTERNAL = (
        70,
        "crash",
        "An internal error (a bug in Arlow), with its traceback in the log; or a GPU or the way "
        "between GPUs failed, which the message says.",
        "Do what the message says, or report it with the traceback in the log; the same command "
        "resumes from the newest checkpoint.",
    )
    LEASE = (
        73,
        "leaseHeld",
        "Another live run uses the run URL.",
        "Wait for that run or stop it, or give this one another metadata.name.",
    )
    STORE = (
        74,
        "store",
        "A store of checkpoints or data cannot be read or written, or holds damaged objects.",
        "Check the store and the way to it; the same command resumes from the newest checkpoint.",
    )
    INTERRUPTED = (
        75,
        "interrupted",
        "The run was asked to stop.",
        "The same command resumes from the newest checkpoint.",
    )
    CREDENTIALS = (
        77,
        "credentials",
        "A store or hub refused the given credentials, or none were given.",
        "Set or renew the credentials.",
    )
    CONFIG = (
        78,
        "config",
        "A manifest, an override or an argument of a command is wrong.",
        "Correct it; `arlow config validate FILE` reports all mistakes of a manifest at once.",
    )
    KEYBOARD_INTERRUPT = (
        130,
        "interrupted",
        "Ctrl-C; in `arlow train` a second one, which does not wait for a checkpoint.",
        "The same command resumes from the newest checkpoint.",
    )


class ArlowError(Exception):
    """An error that is reported to the user without a traceback.

    The message is one or more lines: what was wrong, where (file, field, key), what to do. It goes
    to logs, events and the status, so the credentials of URLs in it are removed, and what is not
    printable, such as bytes of a name that are not UTF-8, is escaped.
    """

    exit_code: ExitCode = ExitCode.INTERNAL

    def __init__(self, message: str) -> None:
        super().__init__(shown(message))


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


class LeaseLost(LeaseError):
    """Another run took the run URL over while this one was training."""

    exit_code = ExitCode.LEASE_LOST


class NonFiniteError(ArlowError):
    """The loss or the gradients stayed NaN or Inf."""

    exit_code = ExitCode.NON_FINITE


class DeviceMemoryError(ArlowError):
    """A device has too little memory for the run."""

    exit_code = ExitCode.OUT_OF_MEMORY


class ProcessKilled(ArlowError):
    """A rank or a decoding process was killed; most often for want of the machine's memory."""

    exit_code = ExitCode.KILLED


class Interrupted(ArlowError):
    """The run was asked to stop; the message says what is saved."""

    exit_code = ExitCode.INTERRUPTED
