"""The live display of a run at a terminal."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console, RenderableType
from rich.live import Live

from arlow_trainer.config.status import RunStatus
from arlow_trainer.telemetry.display import status_panel, utc_now

REFRESH_PER_SECOND = 4


class LiveDisplay:
    """Shows the run's status below the log lines until it is closed.

    The panel is drawn by a thread of its own from the status of the moment, so that a step costs
    nothing for it.
    """

    def __init__(self, status: Callable[[], RunStatus], console: Console | None = None) -> None:
        def draw() -> RenderableType:
            return status_panel(status(), utc_now())

        self._live = Live(
            console=console or Console(),
            get_renderable=draw,
            refresh_per_second=REFRESH_PER_SECOND,
        )
        self._live.start()

    def close(self) -> None:
        """Draws the last state, leaves it on the screen, and gives stdout back."""
        self._live.stop()
