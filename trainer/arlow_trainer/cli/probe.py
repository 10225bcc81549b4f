"""`arlow probe`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from arlow_trainer.probe import Probed


def probe(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="The run's URL, or that of a checkpoint in it.")
    ],
    data: Annotated[
        str,
        typer.Option(
            metavar="NAME|DIR",
            help="The labelled set: a Hugging Face data set, or a folder (./DIR) of class folders, "
            "parquet or arrow.",
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="Configuration of the data set, where it has several.")
    ] = None,
    train_split: Annotated[str, typer.Option(help="Split to learn from.")] = "train",
    test_split: Annotated[str, typer.Option(help="Split to test on.")] = "test",
    column: Annotated[
        str | None, typer.Option(help="Column of the pictures; unset: `image`, or the only one.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Column of the labels; unset: `label`, or the only one.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=2, help="Most samples of each split, drawn at random; unset: all."),
    ] = None,
    neighbors: Annotated[int, typer.Option(min=1, help="The k of k-NN.")] = 20,
    step: Annotated[
        int | None, typer.Option(min=0, help="The checkpoint's step; unset: the newest valid one.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON line per result instead of the table.")
    ] = False,
) -> None:
    """Tell what a tower has learned, by its frozen features on labelled pictures.

    Accuracy of k nearest neighbours and of a linear probe, beside that of random weights. The
    results are added to the run's probe.jsonl, and so to its report; see docs/probing.md.
    """
    from datasets import disable_progress_bars
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from arlow_trainer.checkpoint.location import open_url
    from arlow_trainer.cli.console import print_warning
    from arlow_trainer.config import ProbeSection, SourceSection
    from arlow_trainer.probe.evaluate import keep, records, run_probe

    if not sys.stderr.isatty():
        disable_progress_bars()
    store, named = open_url(url)
    section = ProbeSection(
        data=SourceSection(path=data, name=name, split=train_split, column=column),
        test_split=test_split,
        label=label,
        limit=limit,
    )
    with Progress(
        TextColumn("pictures"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task("", total=None)
        probed = run_probe(
            store,
            named if step is None else step,
            section,
            neighbors,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    if probed.broken:
        print_warning(f"{data}: {probed.broken} pictures cannot be decoded and are left out")
    lines = records(probed)
    if as_json:
        for line in lines:
            typer.echo(json.dumps(line))
    else:
        _print_table(probed)
    keep(store, lines)


def _print_table(probed: Probed) -> None:
    from rich.console import Console
    from rich.table import Table

    from arlow_trainer.probe.results import SEEDS, table_rows

    table = Table(
        title=f"{probed.run}, step {probed.step:,}, on {probed.data}",
        caption=(
            f"{probed.samples['train']:,} training and {probed.samples['test']:,} test samples of "
            f"{probed.classes:,} classes; mean ± deviation over {SEEDS} halves of the training "
            "samples"
        ),
    )
    table.add_column("method")
    for heading in ("pretrained", "random weights", "margin"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in table_rows(probed.results):
        table.add_row(*row)
    Console().print(table)
