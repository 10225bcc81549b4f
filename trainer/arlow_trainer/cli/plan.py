"""`arlow plan`."""

from __future__ import annotations

from typing import Annotated

import typer

from arlow_trainer.cli.options import Overrides, RunSource
from arlow_trainer.config import ConfigError, load_run
from arlow_trainer.plan.hardware import HARDWARE
from arlow_trainer.plan.run_plan import DevicePlan, Unfit, plan_run
from arlow_trainer.plan.show import as_text, comparison, device_table, run_table, to_json

DEFAULT_GPU = "rtx-8000"


def plan(
    run: RunSource = "arlow-vision-3072",
    overrides: Overrides = None,
    gpu: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A GPU to show in detail, repeat for more; unset: that of spec.nodes.gpuProduct, "
            f"or {DEFAULT_GPU}.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print everything, for every GPU, as JSON.")
    ] = False,
) -> None:
    """Say what a run will hold, compute, move and take, before it is started.

    On its nodes (spec.nodes), with every GPU of the hardware table. It opens no data and no store.
    """
    manifest = load_run(run, overrides or ())
    names = gpu or [manifest.spec.nodes.gpu_product or DEFAULT_GPU]
    for name in names:
        if name not in HARDWARE:
            raise ConfigError(f"--gpu: {name} is not known; allowed: {', '.join(HARDWARE)}")
    planned = plan_run(manifest, list(HARDWARE.values()))
    if as_json:
        typer.echo(to_json(planned))
        return
    chosen = [device for device in planned.devices if device.gpu in names]
    typer.echo(as_text(run_table(planned)))
    fitting = [device for device in chosen if isinstance(device, DevicePlan)]
    if fitting:
        typer.echo("\n" + as_text(device_table(fitting)))
    for device in chosen:
        if isinstance(device, Unfit):
            typer.echo(f"\n{device.gpus} x {device.gpu}: {device.reason}")
    typer.echo("\n" + as_text(comparison(planned)))
