"""`arlow export`."""

from __future__ import annotations

from typing import Annotated

import typer

from arlow_trainer.cli.console import print_warning
from arlow_trainer.cli.options import RunUrl, Step


def export(
    url: RunUrl,
    out: Annotated[str, typer.Option(metavar="DIR|URL", help="The folder to write.")],
    step: Step = None,
) -> None:
    """Export a checkpoint's tower, processors and model card.

    `AutoModel.from_pretrained("OUT/vision_encoder", trust_remote_code=True)` loads the tower
    wherever transformers is installed.
    """
    from arlow_trainer.checkpoint.code_files import foreign_code
    from arlow_trainer.checkpoint.contents import check_contents
    from arlow_trainer.checkpoint.export import TOWER, WEIGHTS
    from arlow_trainer.checkpoint.export import export as copy
    from arlow_trainer.checkpoint.location import newest_step
    from arlow_trainer.checkpoint.training_state import TRAINING_STATE
    from arlow_trainer.storage.store import Store

    store = Store(url)
    if step is None:
        step = newest_step(store, deep=True)
    else:
        check_contents(store, step, (TRAINING_STATE, f"{TOWER}/{WEIGHTS}"))
    names = copy(store, step, Store(out))
    if foreign := foreign_code(store, step):
        print_warning(
            f"checkpoint-{step}: its code is not what this version of Arlow writes: "
            f"{', '.join(foreign)}; trust_remote_code=True would run it: read it before, or "
            "export with the version that wrote it"
        )
    typer.echo(f"checkpoint-{step}: wrote {len(names)} files to {out}")
