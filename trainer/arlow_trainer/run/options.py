"""What the command line adds to a run; none of it changes the training."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Literal

from arlow_trainer.storage.grace import DEFAULT_S

StopSignalName = Literal["TERM", "USR1"]


@dataclass(frozen=True)
class TrainOptions:
    """Options of `arlow train`.

    Attributes:
        port: port of /metrics and /status on rank 0; None serves none.
        live: show the live display at a terminal.
        log_format: how log lines look; "auto" is JSON in a pod without a
            terminal and text elsewhere.
        adopt: take the run's folder over from the run that it belongs to.
        grace_s: seconds from a request to stop until the run is killed.
        stop_signal: asks the run to stop; SIGTERM always does.
    """

    port: int | None = None
    live: bool = True
    log_format: Literal["auto", "json", "text"] = "auto"
    adopt: bool = False
    grace_s: float = DEFAULT_S
    stop_signal: StopSignalName = "TERM"

    @property
    def stop_number(self) -> signal.Signals:
        """The stop signal."""
        return signal.SIGUSR1 if self.stop_signal == "USR1" else signal.SIGTERM

    @property
    def stack_number(self) -> signal.Signals:
        """The signal that has stacks written."""
        return signal.SIGUSR2 if self.stop_signal == "USR1" else signal.SIGUSR1
