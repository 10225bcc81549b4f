"""`arlow fleet`: shows the runs of a cluster in the terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from arlow_trainer.cli.options import Namespace


def fleet(
    namespace: Namespace = None,
    all_namespaces: Annotated[
        bool, typer.Option("-A", "--all-namespaces", help="Show the runs of all namespaces.")
    ] = False,
    once: Annotated[
        bool, typer.Option("--once", help="Show the runs as they are now, and exit.")
    ] = False,
) -> None:
    """Watch all runs in a cluster: progress, throughput, goodput, and what is not well, and why.

    It asks the Kubernetes API alone. Ctrl-C ends it; without a terminal it prints once.
    """
    from rich.console import Console

    from arlow_trainer.cluster.access import Access
    from arlow_trainer.cluster.fleet_watch import Scope, show_fleet, watch_fleet

    if namespace and all_namespaces:
        raise typer.BadParameter("-n and -A exclude each other")
    access = Access.of_kubectl()
    scope = Scope(access, None if all_namespaces else namespace or access.namespace)
    console = Console()
    # Where something else forces colours, rich takes a pipe for a terminal.
    if once or not console.file.isatty() or console.is_dumb_terminal:
        show_fleet(scope, console)
        return
    try:
        watch_fleet(scope, console)
    except KeyboardInterrupt:
        raise typer.Exit from None
