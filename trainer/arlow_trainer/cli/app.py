"""The command `arlow`: its commands, and how its failures end.

A command is a plain function in its own module here, registered below. It imports what it needs
(torch above all) inside the function, so that `arlow --help` stays fast.
"""

from __future__ import annotations

import errno
import logging
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from arlow_trainer.config.errors import ArlowError, ExitCode, Interrupted

from .checkpoints import checkpoints_app
from .config import config_app
from .console import tell_failure, tell_note
from .curves import curves
from .data import data_app
from .export import export
from .probe import probe
from .reconstruct import reconstruct
from .report import report
from .train import train
from .watch import watch

KEYBOARD_INTERRUPT = 130


class Commands(TyperGroup):
    """The commands, ended by Ctrl-C as a shell expects it."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command chosen."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            tell_failure("interrupted")
            raise typer.Exit(KEYBOARD_INTERRUPT) from None


app = typer.Typer(
    name="arlow",
    cls=Commands,
    help="Pretrain the Arlow vision tower by masked autoencoding, on a laptop or a cluster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(train)
app.command()(watch)
app.add_typer(checkpoints_app, name="checkpoints")
app.command()(export)
app.command()(reconstruct)
app.command()(curves)
app.command()(report)
app.command()(probe)
app.add_typer(config_app, name="config")
app.add_typer(data_app, name="data")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"arlow {version('arlow-pretrain')}")
        raise typer.Exit


@app.callback()
def arlow(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Holds the options that stand before a command."""


def main() -> None:
    """Runs `arlow` with the process's arguments; a failure ends in a message and its exit code."""
    try:
        app()
    except Interrupted as error:
        tell_note(str(error))
        sys.exit(error.exit_code)
    except ArlowError as error:
        tell_failure(str(error))
        sys.exit(error.exit_code)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            tell_failure(f"the disk is full: {error}; free some space and run the command again")
            sys.exit(ExitCode.STORE)
        logging.getLogger("arlow").exception("arlow failed on a defect of its own")
        tell_failure(
            f"a defect of Arlow itself: {type(error).__name__}: {error}\n"
            "please report it with the traceback in the log and the command you ran"
        )
        sys.exit(ExitCode.DEFECT)
