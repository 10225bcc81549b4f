"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from arlow_trainer.config.presets import PRESETS


def complete_run(incomplete: str) -> Iterator[str]:
    """Yields the presets, manifests and folders that a half-typed argument may become."""
    yield from (preset for preset in PRESETS if preset.startswith(incomplete))
    folder, _, start = incomplete.rpartition("/")
    root = Path(f"{folder}/" if "/" in incomplete else ".").expanduser()
    if not root.is_dir():
        return
    prefix = f"{folder}/" if "/" in incomplete else ""
    for path in sorted(root.iterdir()):
        if path.name.startswith(start) and (path.is_dir() or path.suffix in (".yaml", ".yml")):
            yield f"{prefix}{path.name}{'/' if path.is_dir() else ''}"


def _run_url(url: str) -> str:
    from arlow_trainer.checkpoint.location import check_run_url

    return check_run_url(url)


RunSource = Annotated[
    str,
    typer.Argument(
        metavar="FILE|PRESET",
        help=f"A manifest, or a preset: {', '.join(PRESETS)}.",
        autocompletion=complete_run,
    ),
]

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Override one field, e.g. mae.maskRatio=0.6; repeat for more.",
    ),
]

Namespace = Annotated[
    str | None,
    typer.Option(
        "-n",
        "--namespace",
        metavar="NAMESPACE",
        help="Namespace of a run in a cluster; unset: that of kubectl's context.",
    ),
]

RunUrl = Annotated[
    str,
    typer.Argument(
        metavar="RUN_URL",
        help="The run's URL: <checkpoint url>/<run name>.",
        callback=_run_url,
    ),
]

Step = Annotated[
    int | None,
    typer.Option(min=0, help="Step of the checkpoint; unset: the newest complete one."),
]
