"""`arlow reconstruct`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def reconstruct(
    media: Annotated[
        Path,
        typer.Argument(metavar="IMAGE|VIDEO", help="A picture or film."),
    ],
    checkpoint: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="A run's URL, for its newest complete checkpoint, or a checkpoint's.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Unset: NAME-reconstruction.png in this folder."),
    ] = None,
    mask_ratio: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of the picture to hide; unset: the run's."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the mask.")] = 0,
) -> None:
    """Hide most of a picture or film and let a checkpoint fill it in.

    Writes original, masked and reconstruction side by side, and tells how near they came.
    """
    from arlow_trainer.checkpoint.load import load_autoencoder
    from arlow_trainer.checkpoint.location import open_url
    from arlow_trainer.cli.files import check_ending, write_file
    from arlow_trainer.config.errors import DataError
    from arlow_trainer.pictures.drawing import draw, png
    from arlow_trainer.pictures.reconstruction import notes, panels
    from arlow_trainer.pictures.reconstruction import reconstruct as predict
    from arlow_trainer.pictures.samples import check_mask_ratio, read_file

    if not media.is_file():
        why = "is a folder" if media.is_dir() else "no such file"
        raise DataError(f"{media}: {why}; give a picture or a film")
    path = out or Path(f"{media.stem}-reconstruction.png")
    check_ending(path, ".png")
    module, run, state = load_autoencoder(*open_url(checkpoint))
    training = run.spec.training
    changed = {} if mask_ratio is None else {"mask_ratio": mask_ratio}
    mae = training.mae.model_copy(update=changed)
    check_mask_ratio(mae, training)
    frames = read_file(media, training.data)
    made = panels(predict(module, frames, mae, seed), len(frames), training)
    told = notes(made.score, training.mae.normalized_pixel_loss)
    title = f"{media.name}, seen by {run.metadata.name} after step {state.step:,}"
    write_file(path, png(draw(made, title, told), "\n".join([title, *told])))
    typer.echo("\n".join([f"the picture is in {path}", *told]))
