"""`arlow train`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from arlow_trainer.cli.options import Overrides, RunSource
from arlow_trainer.config import load_run
from arlow_trainer.run.options import TrainOptions
from arlow_trainer.run.termination import failures_written


def train(
    run: RunSource,
    overrides: Overrides = None,
    ranks: Annotated[
        int | None,
        typer.Option(min=1, help="Training processes; unset: one per GPU, or one without GPUs."),
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
) -> None:
    """Pretrain a tower, or resume the run from its newest valid checkpoint.

    Ctrl-C and SIGTERM save a checkpoint and end with exit code 75; the same command resumes from
    it. All exit codes are listed in docs/configuration.md.
    """
    with failures_written():
        manifest = load_run(run, overrides or ())
    from arlow_trainer.run.launch import launch

    launch(manifest, ranks, TrainOptions(port, live, log))
