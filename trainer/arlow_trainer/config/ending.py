"""How an attempt of a run ended: the line in the termination message, which supervisors read."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from arlow_trainer.config.errors import ExitCode
from arlow_trainer.config.shown_text import printable, shown

CONTRACT = 1
"""Raised when a field changes its meaning; new fields do not raise it."""
MAX_BYTES = 3 * 1024 - 1
"""A pod's termination message may have 4 KiB, those of all its containers together 12 KiB."""
MAX_NODE = 253
"""Characters of a node's name, by Kubernetes' rules."""
DEFAULT_PATH = "/dev/termination-log"
PATH_VARIABLE = "ARLOW_TERMINATION_LOG"
NODE_VARIABLE = "ARLOW_NODE_NAME"


class Ending(BaseModel):
    """How an attempt ended, as `arlow train` writes it: one JSON line under 3 KiB.

    Readers ignore keys that they do not know.

    Attributes:
        contract: the number of this format.
        exit_code: the process's exit code.
        cause: `ExitCode.cause`; the exit code in a word.
        message: what happened, where, and what to do.
        remedy: what to do about this cause in general.
        rank: the rank that failed first; None where no single rank did.
        node: where: ARLOW_NODE_NAME, or the machine's host name.
        step: steps that were done; None where training had not begun.
        saved: step of the newest checkpoint in the run's URL, of this attempt or an earlier one;
            None where there is none, or this attempt ended before it knew of one.
        finished: whether the run has done its last step and its checkpoint is saved.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")

    contract: int = CONTRACT
    exit_code: int
    cause: str
    message: str = ""
    remedy: str = ""
    rank: int | None = None
    node: str | None = None
    step: int | None = None
    saved: int | None = None
    finished: bool = False

    @classmethod
    def of(
        cls,
        code: ExitCode,
        message: str,
        *,
        rank: int | None = None,
        step: int | None = None,
        saved: int | None = None,
    ) -> Ending:
        """Returns the ending of an attempt on this machine."""
        return cls(
            exit_code=int(code),
            cause=code.cause,
            message=shown(message),
            remedy=code.remedy,
            rank=rank,
            node=printable(os.environ.get(NODE_VARIABLE) or socket.gethostname())[:MAX_NODE],
            step=step,
            saved=saved,
            finished=code is ExitCode.FINISHED,
        )

    def line(self) -> str:
        """Returns the JSON line, its message shortened where the line would be too long."""
        line = self.model_dump_json(by_alias=True)
        shortened = self.message
        while len(line.encode()) > MAX_BYTES and shortened:
            shortened = shortened[: len(shortened) * 7 // 8]
            cut = self.model_copy(update={"message": f"{shortened}…"})
            line = cut.model_dump_json(by_alias=True)
        return line + "\n"


def signal_name(number: int) -> str:
    """Returns the name of a signal; real-time signals but the first and the last have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def termination_log() -> Path | None:
    """Returns where the termination message goes; None where nothing would read it."""
    configured = os.environ.get(PATH_VARIABLE)
    if configured:
        return Path(configured)
    default = Path(DEFAULT_PATH)
    return default if default.exists() else None
