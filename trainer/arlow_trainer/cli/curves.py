"""`arlow curves`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arlow_trainer.cli.options import RunUrl
from arlow_trainer.config.errors import StoreError


def curves(
    url: RunUrl,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The PNG file to write.")] = Path(
        "curves.png"
    ),
) -> None:
    """Plot a run's loss, learning rate, gradient norm and throughput."""
    from arlow_trainer.cli.files import check_suffix, write_file
    from arlow_trainer.report.curves import curves_png, read_curve
    from arlow_trainer.storage.store import Store

    check_suffix(out, ".png")
    store = Store(url)
    points = read_curve(store)
    if not points:
        raise StoreError(
            f"{store.url} holds no history yet: give the URL of a run (<checkpoint url>/<run "
            "name>) that has logged its loss at least once"
        )
    name = store.url.rpartition("/")[2]
    write_file(out, curves_png(points, f"{name}, {points[-1].step:,} steps"))
    typer.echo(f"wrote the curves to {out}")
