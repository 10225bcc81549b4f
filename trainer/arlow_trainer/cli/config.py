"""`arlow config`: show, validate, schema."""

from __future__ import annotations

from typing import Annotated

import typer

from arlow_trainer.cli.console import print_error, print_warning
from arlow_trainer.cli.options import Overrides, RunSource, complete_run
from arlow_trainer.config import ArlowError, ConfigError, advise, known_set_size, load_run, to_yaml
from arlow_trainer.config.errors import DeviceMemoryError
from arlow_trainer.config.reference import json_schema
from arlow_trainer.plan import check_declared_gpus, fits_no_gpu

config_app = typer.Typer(help="Show and validate run configurations.", no_args_is_help=True)


@config_app.command()
def show(run: RunSource = "arlow-vision-3072", overrides: Overrides = None) -> None:
    """Print a run as YAML, with every field, its defaults and your --set values."""
    typer.echo(to_yaml(load_run(run, overrides or ())), nl=False)


@config_app.command()
def validate(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...", help="Manifests or presets.", autocompletion=complete_run
        ),
    ],
    overrides: Overrides = None,
) -> None:
    """Report every mistake in the files, and warn about settings that are probably unintended."""
    failed: ArlowError | None = None
    for file in files:
        try:
            run = load_run(file, overrides or ())
            check_declared_gpus(run)
        except ConfigError as error:
            print_error(str(error))
            failed = error
            continue
        except DeviceMemoryError as error:
            print_error(f"{file}: on {run.spec.nodes.gpu_product}: {error}")
            failed = failed or error
            continue
        if (unfit := fits_no_gpu(run)) is not None:
            print_warning(f"{file}: {unfit}")
        for warning in advise(run, known_set_size(run)):
            print_warning(f"{file}: {warning}")
        typer.echo(f"{file}: valid")
    if failed:
        raise typer.Exit(int(failed.exit_code))


@config_app.command()
def schema() -> None:
    """Print the JSON schema of a manifest, for editors and other tools."""
    typer.echo(json_schema(), nl=False)
