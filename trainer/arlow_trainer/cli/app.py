"""The command `arlow`: registers its commands and turns errors into messages and exit codes.

A command is a plain function in its own module here, registered below. It imports torch and other
slow packages inside the function, so that `arlow --help` stays fast.
"""

from __future__ import annotations

import io
import logging
import os
import shlex
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from arlow_trainer.cli.checkpoints import checkpoints_app
from arlow_trainer.cli.config import config_app
from arlow_trainer.cli.console import ConsoleHandler, print_error, print_note
from arlow_trainer.cli.curves import curves
from arlow_trainer.cli.data import data_app
from arlow_trainer.cli.export import export
from arlow_trainer.cli.fleet import fleet
from arlow_trainer.cli.logs import logs
from arlow_trainer.cli.plan import plan
from arlow_trainer.cli.probe import probe
from arlow_trainer.cli.reconstruct import reconstruct
from arlow_trainer.cli.report import report
from arlow_trainer.cli.retry import retry
from arlow_trainer.cli.train import train
from arlow_trainer.cli.watch import watch
from arlow_trainer.config.errors import ArlowError, ExitCode, Interrupted
from arlow_trainer.run.held_signals import release_signals
from arlow_trainer.run.termination import exit_code_of, message_of, write_ending
from arlow_trainer.storage.streams import lasting, open_closed_streams


class Commands(TyperGroup):
    """The commands; Ctrl-C ends them with exit code 130, as shells expect."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the chosen command."""
        try:
            if _command() != "train":
                release_signals()
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print_error("interrupted")
            raise typer.Exit(int(ExitCode.KEYBOARD_INTERRUPT)) from None


app = typer.Typer(
    name="arlow",
    cls=Commands,
    help="Pretrain the Arlow vision tower by masked autoencoding, on a laptop or a cluster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Credentials may be among them.
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(train)
app.command()(plan)
app.command()(watch)
app.command()(fleet)
app.command()(retry)
app.command()(logs)
app.add_typer(checkpoints_app, name="checkpoints")
app.command()(export)
app.command()(reconstruct)
app.command()(curves)
app.command()(report)
app.command()(probe)
app.add_typer(config_app, name="config")
app.add_typer(data_app, name="data")


def _version(requested: bool) -> None:
    if requested:
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
    """Declares the options that precede a command."""


def _command() -> str | None:
    """Returns the name of the command that the process's arguments call."""
    return next((word for word in sys.argv[1:] if not word.startswith("-")), None)


def main() -> NoReturn:
    """Runs `arlow` with the process's arguments; errors end it with a message and an exit code."""
    training = _command() == "train"
    open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        # A name that is not UTF-8 must not end a command that prints it.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stderr = lasting(sys.stderr)
    if training:
        # Any other command ends when the reader of its output does.
        sys.stdout = lasting(sys.stdout)
    # What is logged where nothing else takes log lines, as in all commands except train.
    logging.lastResort = ConsoleHandler(logging.WARNING)
    code = _exit_code(training)
    if training:
        sys.stdout.flush()
        sys.stderr.flush()
        # The run has said how it ended, and a signal must not change that any more. A store's
        # client waits seconds at the interpreter's end, and the grace period may be over.
        os._exit(code)
    sys.exit(code)


def _usage_problem(error: BaseException | None) -> str:
    """Returns what typer says of a wrong command line, with the variable that is at fault."""
    words = getattr(error, "format_message", None)
    problem = words() if words is not None else "the command line is wrong"
    variable = getattr(getattr(error, "param", None), "envvar", None)
    if isinstance(variable, str) and variable in os.environ:
        problem += f" ({variable}={os.environ[variable]})"
    return str(problem)


def _exit_code(training: bool) -> int:
    """Runs the command, reports the error that ends it, and returns its exit code."""
    try:
        app()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if training and code == ExitCode.USAGE:
            # typer has printed the error that it ends the process for.
            problem = _usage_problem(end.__context__)
            write_ending(ExitCode.USAGE, f"{problem}\nthe command was: {shlex.join(sys.argv)}")
        return code
    except Interrupted as error:
        print_note(str(error))
        return error.exit_code
    except Exception as error:
        code = exit_code_of(error)
        if code is ExitCode.INTERNAL and not isinstance(error, ArlowError):
            logging.getLogger("arlow").exception("internal error")
        print_error(message_of(error))
        return code
    return ExitCode.FINISHED
