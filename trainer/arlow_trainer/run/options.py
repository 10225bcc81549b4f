"""What the command line adds to a run; none of it changes the training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TrainOptions:
    """Options of `arlow train`.

    Attributes:
        port: port of /metrics and /status on rank 0; None serves none.
        live: show the live display at a terminal.
        log_format: how log lines look; "auto" is JSON in a pod without a
            terminal and text elsewhere.
        adopt: take the run's folder over from the run that it belongs to.
    """

    port: int | None = None
    live: bool = True
    log_format: Literal["auto", "json", "text"] = "auto"
    adopt: bool = False
