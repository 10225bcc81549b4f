"""Plots of a run's probe results over steps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from arlow_trainer.config.shown_text import printable
from arlow_trainer.probe.stored import Probe
from arlow_trainer.report.plotting import Palette, Plot, draw_legend, draw_line

MIN_SPAN = 0.1
"""Minimum range of the accuracy axis, whose full range is 0 to 1."""


def probe_plots(probes: Sequence[Probe]) -> list[Plot]:
    """Returns a plot for every data set: accuracy over steps; dashed, that of random weights."""
    sets = groupby(probes, key=lambda probe: probe.data)
    return [_plot(data, list(of_set)) for data, of_set in sets]


def _plot(data: str, probes: Sequence[Probe]) -> Plot:
    def draw(axes: Axes, palette: Palette) -> None:
        colours = (palette.image, palette.video, palette.main, palette.faint)
        names = groupby(probes, key=lambda probe: probe.name)
        for number, (name, found) in enumerate(names):
            points, colour = list(found), colours[number % len(colours)]
            steps = np.array([point.step for point in points], dtype=np.float64)
            accuracy = np.array([point.accuracy for point in points])
            spread = np.array([point.spread or 0.0 for point in points])
            draw_line(axes, steps, accuracy, colour, printable(name))
            axes.fill_between(steps, accuracy - spread, accuracy + spread, color=colour, alpha=0.15)
            baseline = points[-1].baseline
            if baseline is not None:
                axes.axhline(baseline, color=colour, linewidth=1, linestyle=(0, (4, 3)))
        _set_limits(axes, max(probe.step for probe in probes))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        draw_legend(axes, palette)

    return Plot(f"Probe accuracy on {data}", draw)


def _set_limits(axes: Axes, last_step: int) -> None:
    """Starts the plot at step 0, and widens the accuracy axis so that noise does not fill it."""
    axes.set_xlim(0, max(1, last_step) * 1.04)
    low, high = axes.get_ylim()
    missing = max(0.0, MIN_SPAN - (high - low)) / 2
    axes.set_ylim(max(-0.02, low - missing), min(1.02, high + missing))
