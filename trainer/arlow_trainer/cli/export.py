"""`arlow export`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer

from arlow_trainer.cli.console import print_warning
from arlow_trainer.cli.options import RunUrl, Step


def export(
    url: RunUrl,
    out: Annotated[str | None, typer.Option(metavar="DIR|URL", help="The folder to write.")] = None,
    step: Step = None,
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"],
        typer.Option(help="Type of the weights; float32 is what the optimiser changes."),
    ] = "float32",
    licence: Annotated[
        str | None,
        typer.Option(
            "--license",
            metavar="NAME",
            help="Licence to state on the model card, by Hugging Face's name: apache-2.0.",
        ),
    ] = None,
    onnx: Annotated[
        bool,
        typer.Option(
            "--onnx",
            help="Write the tower for pictures of the size it was trained on as ONNX and as a "
            "torch.export program as well.",
        ),
    ] = False,
    push: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="Upload it to the Hugging Face hub as well."),
    ] = None,
) -> None:
    """Export a checkpoint's tower, processors and model card, as one Hugging Face repository.

    The card has the results of the checkpoint's probes.
    `AutoModel.from_pretrained("OUT", trust_remote_code=True)` loads the tower wherever transformers
    is installed, and AutoProcessor likewise.
    """
    from functools import partial

    import torch

    from arlow_trainer.checkpoint.code_files import foreign_code
    from arlow_trainer.checkpoint.contents import check_contents
    from arlow_trainer.checkpoint.export import TOWER, WEIGHTS
    from arlow_trainer.checkpoint.export import export as copy
    from arlow_trainer.checkpoint.location import newest_step
    from arlow_trainer.checkpoint.programs import check_packages, grid_of_training
    from arlow_trainer.checkpoint.push import push as upload
    from arlow_trainer.checkpoint.saver import read_state
    from arlow_trainer.checkpoint.training_state import TRAINING_STATE, saved_run
    from arlow_trainer.config import ConfigError
    from arlow_trainer.probe.card import complete_card
    from arlow_trainer.probe.stored import PROBE_FILE, read_probes
    from arlow_trainer.storage.jsonl import read_lines
    from arlow_trainer.storage.store import Store

    if out is None and push is None:
        raise ConfigError("nothing says where to: give --out DIR, or --push OWNER/NAME")
    if onnx:
        if dtype != "float32":
            raise ConfigError(f"--onnx writes float32 weights: leave --dtype {dtype} out")
        check_packages()
    store = Store(url)
    if step is None:
        step = newest_step(store, deep=True)
    else:
        check_contents(store, step, (TRAINING_STATE, f"{TOWER}/{WEIGHTS}"))
    probes = [each for each in read_probes(read_lines(store, PROBE_FILE)) if each.step == step]
    write = partial(
        copy,
        store,
        step,
        dtype=getattr(torch, dtype),
        complete_card=partial(complete_card, probes=probes, licence=licence),
        program_grid=grid_of_training(saved_run(read_state(store, step), url)) if onnx else None,
    )
    with tempfile.TemporaryDirectory() as name:
        # What is pushed has a folder of its own: the target's may hold more.
        folder = Path(name)
        names = write(out=Store(name if out is None or push is not None else out))
        if out is not None and push is not None:
            target = Store(out)
            for each in names:
                target.put_file(folder / each, each)
        if foreign := foreign_code(store, step):
            print_warning(
                f"checkpoint-{step}: its code is not what this version of Arlow writes: "
                f"{', '.join(foreign)}; trust_remote_code=True would run it: read it before, or "
                "export with the version that wrote it"
            )
        if out is not None:
            typer.echo(f"checkpoint-{step}: wrote {len(names)} files to {out}")
        if push is not None:
            typer.echo(f"checkpoint-{step}: pushed to {upload(folder, push)}")
