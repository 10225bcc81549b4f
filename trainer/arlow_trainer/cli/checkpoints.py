"""`arlow checkpoints`: ls, verify."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from arlow_trainer.cli.console import print_error, print_warning
from arlow_trainer.cli.options import RunUrl
from arlow_trainer.config.errors import ExitCode
from arlow_trainer.config.shown_text import printable

if TYPE_CHECKING:
    from arlow_trainer.checkpoint.reader import CheckpointInfo

checkpoints_app = typer.Typer(
    help="List and verify the checkpoints of a run.", no_args_is_help=True
)


@checkpoints_app.command("ls")
def ls(url: RunUrl) -> None:
    """List a run's checkpoints; one is complete when manifest, file sizes and state are right.

    Ends with exit code 74 if there are no checkpoints, not even unfinished ones.
    """
    from arlow_trainer.checkpoint.contents import list_readable
    from arlow_trainer.storage.store import Store

    table = Table(box=None, pad_edge=False)
    for name in ("STEP", "STATE", "SIZE", "CREATED (UTC)", "URL"):
        table.add_column(name, justify="right" if name in ("STEP", "SIZE") else "left")
    found = list_readable(Store(url))
    for info in found:
        created = info.created.strftime("%Y-%m-%d %H:%M:%S") if info.created else "-"
        size = "-" if info.bytes is None else f"{info.bytes / 2**20:,.1f} MiB"
        state = "complete" if info.valid else info.reason
        # As text: rich reads [brackets] in a str as markup.
        cells = (f"{info.step:,}", printable(state), size, created, printable(info.url))
        table.add_row(*map(Text, cells))
    if not found:
        raise _no_checkpoints(url)
    _console().print(table)
    typer.echo(
        "complete: checked by file sizes, state and headers; `arlow checkpoints verify` reads "
        "every byte",
        err=True,
    )


@checkpoints_app.command()
def verify(
    url: RunUrl,
    step: Annotated[
        int | None, typer.Option(min=0, help="Step of the checkpoint; unset: all checkpoints.")
    ] = None,
) -> None:
    """Read every byte of the checkpoints and compare them with their manifests.

    Names each damaged file, and ends with exit code 74 if there is one. Unfinished checkpoints
    are listed and skipped.
    """
    from arlow_trainer.checkpoint import reader
    from arlow_trainer.checkpoint.contents import content_problems
    from arlow_trainer.storage.store import Store

    store = Store(url)
    steps = _committed(reader.list_checkpoints(store)) if step is None else [step]
    if not steps:
        raise _no_checkpoints(url)
    damaged = False
    for number in steps:
        problems = reader.verify(store, number) or content_problems(store, number)
        for problem in problems:
            print_error(f"checkpoint-{number}: {problem}")
        damaged = damaged or bool(problems)
        if not problems:
            typer.echo(f"checkpoint-{number}: intact, every byte is as it was written")
    if damaged:
        raise typer.Exit(int(ExitCode.STORE))


def _no_checkpoints(url: str) -> typer.Exit:
    print_error(f"{url} holds no checkpoints: check the URL, which ends in the run's name")
    return typer.Exit(int(ExitCode.STORE))


def _committed(found: list[CheckpointInfo]) -> list[int]:
    """Returns the steps that have a manifest, and warns about the others."""
    for info in found:
        if info.unfinished:
            print_warning(
                f"checkpoint-{info.step}: skipped, it is being written or was never finished"
            )
    return [info.step for info in found if not info.unfinished]


def _console() -> Console:
    # A pipe has no width: rich would wrap lines at 80 columns.
    return Console() if os.isatty(1) else Console(width=1000)
