"""A run's curves, a plot for each title in the table of scalars."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from arlow_trainer.report.plotting import (
    Curve,
    Palette,
    Plot,
    draw_legend,
    draw_line,
    linear_scale,
    log_scale,
    to_png,
)
from arlow_trainer.storage.jsonl import read_lines
from arlow_trainer.storage.store import Store
from arlow_trainer.telemetry import HISTORY_FILE, HistoryPoint, read_history
from arlow_trainer.telemetry.scalars import SCALARS, Scalar, rows_to_show

_LABELS = {"image": "images", "video": "clips"}


def read_curve(store: Store) -> list[HistoryPoint]:
    """Returns the run's history, empty where there is none. Raises StoreError."""
    lines = read_lines(store, HISTORY_FILE)
    return read_history(line.decode("utf-8", "replace") for line in lines)


def values(points: Sequence[HistoryPoint], name: str) -> Curve:
    """Returns a scalar over the points, NaN where it was not read."""
    return np.array([point.scalars.get(name, np.nan) for point in points], dtype=np.float64)


def curves_png(points: Sequence[HistoryPoint], title: str) -> bytes:
    """Returns all plots below each other, as a PNG file."""
    return to_png(scalar_plots(points), title)


def scalar_plots(points: Sequence[HistoryPoint]) -> list[Plot]:
    """Returns the plots that the table of scalars names, in its order."""
    titles = dict.fromkeys(row.plot for row in SCALARS.values() if row.plot is not None)
    return [_plot(title, points) for title in titles]


def _plot(title: str, points: Sequence[HistoryPoint]) -> Plot:
    """Returns the plot of a title: a line for each of its scalars that has values."""
    rows = [row for row in SCALARS.values() if row.plot == title]
    curves = {row.name: values(points, row.name) for row in rows}
    known = [name for name, curve in curves.items() if (np.nan_to_num(curve) != 0).any()]
    shown = rows_to_show(known)
    steps = np.array([point.step for point in points], dtype=np.float64)

    def draw(axes: Axes, palette: Palette) -> None:
        # The line of all samples is drawn last, above those of a modality.
        for row in sorted(shown, key=lambda row: row.modality is None):
            alone = len(shown) == 1 or row.modality is None
            colour = palette.main if alone else getattr(palette, str(row.modality))
            draw_line(axes, steps, curves[row.name], colour, _label(row))
        if len(shown) > 1:
            draw_legend(axes, palette)
        (log_scale if rows[0].log_scale else linear_scale)(axes)

    title = title.format(" and ".join(_label(row) for row in shown or rows[:1]))
    title = title[:1].upper() + title[1:]
    return Plot(f"{title}, log scale" if rows[0].log_scale else title, draw)


def _label(row: Scalar) -> str:
    return _LABELS[row.modality] if row.modality is not None else "all samples"
