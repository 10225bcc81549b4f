"""`arlow export`."""

from __future__ import annotations

from typing import Annotated

import typer

from arlow_trainer.config.errors import StoreError


def export(
    url: Annotated[str, typer.Argument(metavar="URL", help="The run's URL.")],
    out: Annotated[str, typer.Option(metavar="DIR|URL", help="Where the export goes.")],
    step: Annotated[
        int | None, typer.Option(help="Checkpoint to export; unset: the newest valid one.")
    ] = None,
) -> None:
    """Copy what users keep of a checkpoint: the tower, its processors and the model card.

    `AutoModel.from_pretrained("OUT/vision_encoder", trust_remote_code=True)` loads the tower
    wherever transformers is installed.
    """
    from arlow_trainer.checkpoint.export import export as copy
    from arlow_trainer.checkpoint.reader import newest_valid
    from arlow_trainer.storage.store import Store

    store = Store(url)
    if step is None:
        newest = newest_valid(store)
        if newest is None:
            raise StoreError(
                f"{url} holds no complete checkpoint; `arlow checkpoints ls {url}` says why"
            )
        step = newest.step
    names = copy(store, step, Store(out))
    typer.echo(f"checkpoint-{step}: {len(names)} files in {out}")
