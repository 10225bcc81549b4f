"""`arlow logs`."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from arlow_trainer.cli.options import RunUrl

# Escape sequences of terminals, and control characters other than tabs and line breaks.
_CONTROLS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def logs(
    url: RunUrl,
    attempt: Annotated[
        int | None, typer.Option(min=1, help="Which attempt, from 1 on; unset: the newest.")
    ] = None,
    rank: Annotated[int | None, typer.Option(min=0, help="Which rank; unset: all.")] = None,
) -> None:
    """Print the last lines that a run's processes wrote, each up to a MiB."""
    from arlow_trainer.run.attempt_logs import read_logs
    from arlow_trainer.storage.store import Store

    number, found = read_logs(Store(url), attempt, rank)
    for name, text in found.items():
        typer.echo(f"==> attempt {number}, {name} <==")
        typer.echo(_CONTROLS.sub("", text))
