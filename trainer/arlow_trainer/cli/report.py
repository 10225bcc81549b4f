"""`arlow report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arlow_trainer.cli.console import print_warning
from arlow_trainer.cli.options import RunUrl, Step


def report(
    url: RunUrl,
    step: Step = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The HTML file to write.")] = Path(
        "report.html"
    ),
) -> None:
    """Write a run's report, a self-contained HTML page.

    Reconstructions over time, curves, throughput, probe results, data and model card, checkpoints,
    events and configuration. Card and configuration are those of the checkpoint.
    """
    from arlow_trainer.cli.files import check_suffix, write_file
    from arlow_trainer.report.page import page
    from arlow_trainer.report.record import read_record
    from arlow_trainer.storage.store import Store
    from arlow_trainer.telemetry.times import utc_now

    check_suffix(out, ".html")
    record = read_record(Store(url), step)
    for reason in record.unread:
        print_warning(f"left out of the report: {reason}")
    content = page(record, utc_now()).encode("utf-8", "backslashreplace")
    write_file(out, content)
    typer.echo(f"wrote the report to {out} ({len(content) / 1e6:.1f} MB)")
