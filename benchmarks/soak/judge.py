"""Whether an attempt ended as documented. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pydantic import ValidationError

from arlow_trainer.config.ending import CONTRACT, MAX_BYTES, Ending
from arlow_trainer.config.errors import ExitCode


@dataclass(frozen=True)
class Attempted:
    """How an attempt ended.

    Attributes:
        code: the exit code; below zero the signal that ended the launcher.
        message: the content of the termination message; None where there is no file.
        log: what the attempt wrote.
    """

    code: int
    message: bytes | None
    log: str

    @property
    def ending(self) -> Ending | None:
        """The termination message; None where there is none that can be read."""
        try:
            return None if self.message is None else Ending.model_validate_json(self.message)
        except ValidationError:
            return None


def problems_of(
    attempted: Attempted, allowed: Collection[int], message: bool, most_lost: int
) -> list[str]:
    """Returns what is wrong with the way an attempt ended.

    Args:
        attempted: the attempt.
        allowed: the codes that it may end with.
        message: whether the process that writes the termination message was left alive.
        most_lost: the steps that may have been done after the newest checkpoint.
    """
    problems = []
    code = attempted.code
    if code >= 0 and code not in {int(one) for one in ExitCode}:
        problems.append(f"exit code {code} is not documented")
    if code not in {int(one) for one in allowed}:
        problems.append(f"ended with {code}, expected {sorted(map(int, allowed))}")
    if code != ExitCode.INTERNAL and "internal error" in attempted.log:
        problems.append("the log calls it an internal error")
    if not message:
        return problems
    ending = attempted.ending
    if ending is None:
        return [*problems, "no termination message that can be read"]
    assert attempted.message is not None
    if len(attempted.message) > MAX_BYTES + 1 or attempted.message.count(b"\n") != 1:
        problems.append("the termination message is not one line under 3 KiB")
    if ending.contract != CONTRACT or ending.exit_code != code:
        problems.append(f"the termination message says {ending.exit_code}, not {code}")
    if code >= 0 and ending.cause != ExitCode(code).cause:
        problems.append(f"the termination message says {ending.cause!r} of code {code}")
    if ending.finished != (code == ExitCode.FINISHED):
        problems.append(f"finished is {ending.finished} with code {code}")
    lost = (ending.step or 0) - (ending.saved or 0)
    if lost > most_lost:
        problems.append(f"{lost} steps after the newest checkpoint, expected {most_lost} at most")
    return problems
