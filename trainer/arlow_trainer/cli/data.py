"""`arlow data`: demo, prepare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arlow_trainer.cli.options import Overrides, RunSource

data_app = typer.Typer(help="Prepare data sets.", no_args_is_help=True)
prepare_app = typer.Typer(help="Convert original archives to folders.", no_args_is_help=True)
data_app.add_typer(prepare_app, name="prepare")


@data_app.command()
def demo(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write.")],
) -> None:
    """Copy the demo's real photographs and videos from installed packages."""
    from arlow_trainer.data.demo import write_demo_set

    made = write_demo_set(out)
    typer.echo(
        f"{out}: {made.train_images} images and {made.train_videos} videos to train on, "
        f"{made.held_out_images} and {made.held_out_videos} held out"
    )


@data_app.command()
def fetch(run: RunSource, overrides: Overrides = None) -> None:
    """Download a run's data sets to the cache (HF_HOME), and check that they can be read."""
    from arlow_trainer.config import load_run
    from arlow_trainer.data.sources import open_sources

    sources = open_sources(load_run(run, overrides or ()).spec.training.data)
    for modality, source in sources.items():
        typer.echo(f"{source.name}: {len(source):,} {modality}s")


@prepare_app.command()
def ucf101(
    archive: Annotated[
        Path, typer.Option(help="UCF101.rar, or the folder it was unpacked to.", exists=True)
    ],
    out: Annotated[str, typer.Option(metavar="DIR|URL", help="The folder to write.")],
    splits: Annotated[
        Path | None,
        typer.Option(help="UCF101TrainTestSplits-RecognitionTask.zip.", exists=True),
    ] = None,
    fold: Annotated[int, typer.Option(min=1, max=3, help="Which of the three splits.")] = 1,
) -> None:
    """Convert the original UCF101 archive to OUT/train and OUT/test."""
    from arlow_trainer.data.prepare import prepare_ucf101

    made = prepare_ucf101(archive, splits, out, fold)
    typer.echo(
        f"{made.out}: {made.classes} classes, {made.train} videos to train on, {made.test} to "
        f"test; set data.videos.path={made.out}"
    )


@prepare_app.command()
def idx(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Folder of IDX files: train-images-idx3-ubyte.gz and so on.",
            exists=True,
            file_okay=False,
        ),
    ],
    out: Annotated[str, typer.Option(metavar="DIR|URL", help="The folder to write.")],
) -> None:
    """Convert a labelled set in MNIST's format to OUT/train.parquet and OUT/test.parquet."""
    from arlow_trainer.data.idx import prepare_idx

    made = prepare_idx(folder, out)
    counts = ", ".join(f"{count:,} of {split}" for split, count in made.samples.items())
    typer.echo(f"{out}: {counts}, {made.classes} classes; set data.images.path={out}")
