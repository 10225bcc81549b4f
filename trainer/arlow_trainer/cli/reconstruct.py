"""`arlow reconstruct`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arlow_trainer.cli.options import RunUrl, Step


def reconstruct(
    url: RunUrl,
    media: Annotated[
        Path,
        typer.Argument(metavar="IMAGE|VIDEO", help="An image or video file."),
    ],
    step: Step = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The PNG file to write; unset: NAME-reconstruction.png in the current folder.",
        ),
    ] = None,
    mask_ratio: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of the patches to mask; unset: the run's."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the mask.")] = 0,
) -> None:
    """Mask an image or video and reconstruct it with a checkpoint.

    Writes original, masked and reconstructed frames side by side as a PNG file, and prints the
    PSNR of the reconstruction.
    """
    from arlow_trainer.checkpoint.load import load_autoencoder
    from arlow_trainer.cli.files import check_suffix, write_file
    from arlow_trainer.config.errors import DataError
    from arlow_trainer.pictures.drawing import draw, png
    from arlow_trainer.pictures.reconstruction import notes, panels
    from arlow_trainer.pictures.reconstruction import reconstruct as predict
    from arlow_trainer.pictures.samples import check_mask_ratio, read_file
    from arlow_trainer.storage.store import Store

    if not media.is_file():
        reason = "is a folder" if media.is_dir() else "no such file"
        raise DataError(f"{media}: {reason}; give an image or video file")
    path = out or Path(f"{media.stem}-reconstruction.png")
    check_suffix(path, ".png")
    module, run, state = load_autoencoder(Store(url), step)
    training = run.spec.training
    changed = {} if mask_ratio is None else {"mask_ratio": mask_ratio}
    mae = training.mae.model_copy(update=changed)
    check_mask_ratio(mae, training)
    frames = read_file(media, training.data)
    made = panels(predict(module, frames, mae, seed), len(frames), training)
    lines = notes(made.score, training.mae.normalized_pixel_loss)
    title = f"{media.name}, reconstructed by {run.metadata.name} after step {state.step:,}"
    write_file(path, png(draw(made, title, lines), "\n".join([title, *lines])))
    typer.echo("\n".join([f"wrote the reconstruction to {path}", *lines]))
