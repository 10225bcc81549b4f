"""`arlow retry`: tells a failed run in a cluster to begin again."""

from __future__ import annotations

from typing import Annotated

import typer

from arlow_trainer.cli.options import Namespace


def retry(
    target: Annotated[
        str, typer.Argument(metavar="apt/NAME", help="The run, as kubectl names it.")
    ],
    namespace: Namespace = None,
) -> None:
    """Have a Failed run in a cluster begin again, when its cause is mended.

    It goes on from its newest checkpoint, with all budgets of spec.failurePolicy as new.
    """
    from arlow_trainer.cluster.runs import ClusterRun, run_name
    from arlow_trainer.config.errors import ConfigError

    name = run_name(target)
    if not name:
        raise ConfigError(f"{target}: no run of a cluster; name one as apt/NAME")
    run = ClusterRun.of(name, namespace)
    run.retry()
    typer.echo(f"{run.target} begins again; arlow watch apt/{name} -n {run.namespace} shows it")
