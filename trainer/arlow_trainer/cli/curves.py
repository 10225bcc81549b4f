"""`arlow curves`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arlow_trainer.config.errors import StoreError


def curves(
    url: Annotated[str, typer.Argument(metavar="URL", help="The run's URL.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the picture goes.")] = Path(
        "curves.png"
    ),
) -> None:
    """Draw a run's loss, learning rate, throughput and gradient norm."""
    from arlow_trainer.checkpoint.location import open_url
    from arlow_trainer.cli.files import check_ending, write_file
    from arlow_trainer.report.curves import curves_png, read_curve

    check_ending(out, ".png")
    store, _ = open_url(url)
    points = read_curve(store)
    if not points:
        raise StoreError(
            f"{store.url} holds no curve yet: give the URL of a run (<checkpoint url>/<run name>) "
            "that has come to its first read-out"
        )
    name = store.url.rpartition("/")[2]
    write_file(out, curves_png(points, f"{name}, {points[-1].step:,} steps"))
    typer.echo(f"the curves are in {out}")
