"""`arlow export`."""

from __future__ import annotations

from typing import Annotated

import typer

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
    from arlow_trainer.checkpoint.export import export as copy
    from arlow_trainer.checkpoint.location import newest_step
    from arlow_trainer.storage.store import Store

    store = Store(url)
    step = newest_step(store, deep=True) if step is None else step
    names = copy(store, step, Store(out))
    typer.echo(f"checkpoint-{step}: wrote {len(names)} files to {out}")
