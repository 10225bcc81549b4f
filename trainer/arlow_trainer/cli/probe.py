"""`arlow probe`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from arlow_trainer.cli.options import RunUrl, Step

if TYPE_CHECKING:
    from arlow_trainer.probe import Probed


def probe(
    url: RunUrl,
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
    train_split: Annotated[str, typer.Option(help="Split to fit the classifiers on.")] = "train",
    test_split: Annotated[str, typer.Option(help="Split to measure accuracy on.")] = "test",
    column: Annotated[
        str | None,
        typer.Option(help="Column of the images; unset: `image`, or the only image column."),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            help="Column of the labels; unset: `label`, or the only column of class labels."
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=0, help="Maximum samples of each split, drawn at random; 0: all.")
    ] = 0,
    neighbors: Annotated[int, typer.Option(min=1, help="k of k-nearest neighbours.")] = 20,
    step: Step = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON line per result instead of the table.")
    ] = False,
) -> None:
    """Measure how well a tower's frozen features classify labelled images.

    Accuracy of k-nearest neighbours and of a linear probe, compared with random weights. The
    results are appended to the run's probe.jsonl, which `arlow report` reads; see docs/probing.md.
    """
    from datasets import disable_progress_bars
    from pydantic import ValidationError
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from arlow_trainer.cli.console import print_warning
    from arlow_trainer.config import ConfigError, ProbeSection, SetSection
    from arlow_trainer.probe.evaluate import append_records, run_probe, to_records
    from arlow_trainer.storage.options import inherited_options
    from arlow_trainer.storage.store import Store

    if not sys.stderr.isatty():
        disable_progress_bars()
    store = Store(url, inherited_options())
    try:
        source = SetSection(path=data, name=name, split=train_split, column=column)
    except ValidationError as error:
        raise ConfigError(f"--data: {error.errors(include_url=False)[0]['msg']}") from None
    section = ProbeSection(data=source, test_split=test_split, label=label, limit=limit)
    with Progress(
        TextColumn("images"),
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
            step,
            section,
            neighbors,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    if probed.broken:
        print_warning(f"{data}: skipped {probed.broken} images that cannot be decoded")
    records = to_records(probed)
    if as_json:
        for record in records:
            typer.echo(json.dumps(record))
    else:
        _print_table(probed)
    append_records(store, records)


def _print_table(probed: Probed) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from arlow_trainer.config.shown_text import printable
    from arlow_trainer.probe.results import SEEDS, table_rows

    table = Table(
        title=Text(printable(f"{probed.run}, step {probed.step:,}, on {probed.data}")),
        caption=(
            f"{probed.samples['train']:,} training and {probed.samples['test']:,} test samples of "
            f"{probed.classes:,} classes; mean ± standard deviation over {SEEDS} halves of the "
            "training samples"
        ),
    )
    table.add_column("method")
    for heading in ("pretrained", "random weights", "margin"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in table_rows(probed.results):
        table.add_row(*row)
    Console().print(table)
