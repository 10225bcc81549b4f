"""`arlow train`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from arlow_trainer.cli.console import print_warning
from arlow_trainer.cli.options import Overrides, RunSource
from arlow_trainer.config import load_run
from arlow_trainer.config.cluster import MAX_RANKS, ignored_here
from arlow_trainer.run.options import StopSignalName, TrainOptions
from arlow_trainer.run.signals import interruptible
from arlow_trainer.run.termination import clear_ending, failures_written
from arlow_trainer.storage.grace import DEFAULT_S


def train(
    run: RunSource,
    overrides: Overrides = None,
    ranks: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_RANKS,
            help="Training processes; unset: one per GPU, or one without GPUs.",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Serve /metrics and /status on this port."),
    ] = None,
    log: Annotated[
        Literal["auto", "text", "json"],
        typer.Option(help="Format of log lines; auto: text at a terminal, JSON elsewhere."),
    ] = "auto",
    live: Annotated[
        bool, typer.Option("--live/--plain", help="A live display, or plain log lines.")
    ] = True,
    adopt: Annotated[
        bool,
        typer.Option(
            "--adopt", help="Take over the run's folder from a run of another namespace or name."
        ),
    ] = False,
    grace: Annotated[
        float,
        typer.Option(
            min=1,
            metavar="SECONDS",
            envvar="ARLOW_GRACE_SECONDS",
            help="How long the run may take to stop, until whoever stops it kills it.",
        ),
    ] = DEFAULT_S,
    stop_signal: Annotated[
        StopSignalName,
        typer.Option(
            help="A signal that stops the run; SIGTERM always does. With USR1, as SLURM's --signal "
            "sends it, SIGUSR2 writes stacks to the log instead of SIGUSR1."
        ),
    ] = "TERM",
) -> None:
    """Pretrain a tower, or resume the run from its newest valid checkpoint.

    Ctrl-C and SIGTERM save a checkpoint and end with exit code 75, at the end of the grace period
    at the latest; the same command resumes from it. A second one ends the run at once. All exit
    codes are listed in docs/configuration.md.
    """
    clear_ending()
    options = TrainOptions(
        port=port, live=live, log_format=log, adopt=adopt, grace_s=grace, stop_signal=stop_signal
    )
    with failures_written(), interruptible(options):
        manifest = load_run(run, overrides or ())
    for ignored in ignored_here(manifest):
        print_warning(ignored)
    from arlow_trainer.run.launch import launch

    launch(manifest, ranks, options)
