"""`arlow report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="The run's URL, or that of a checkpoint in it.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the page goes.")] = Path(
        "report.html"
    ),
) -> None:
    """Write a run's report: one HTML page that needs no other file.

    Reconstructions over time, curves, throughput, probe results, data and model card, checkpoints,
    events and configuration.
    """
    from arlow_trainer.checkpoint.location import open_url
    from arlow_trainer.cli.files import check_ending, write_file
    from arlow_trainer.report.page import page
    from arlow_trainer.report.record import read_record
    from arlow_trainer.telemetry.times import utc_now

    check_ending(out, ".html")
    content = page(read_record(*open_url(url)), utc_now()).encode()
    write_file(out, content)
    typer.echo(f"the report is in {out} ({len(content) / 1e6:.1f} MB)")
