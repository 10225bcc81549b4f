"""Style of plots, and rendering them to a PNG file or as SVG for a page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from arlow_trainer.config.shown_text import printable

Curve = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Palette:
    """Colours of a plot."""

    ink: str = "#1b1f24"
    faint: str = "#656d76"
    grid: str = "#e3e6ea"
    main: str = "#1b1f24"
    image: str = "#2f6fdb"
    video: str = "#d9621e"


@dataclass(frozen=True)
class Plot:
    """A plot over steps: its title, and a function that draws its lines."""

    title: str
    draw: Callable[[Axes, Palette], None]


# Placeholders, which `to_svg` replaces by the page's CSS variables: they follow its colour scheme.
_PLACEHOLDERS = Palette("#010101", "#010102", "#010103", "#010104", "#010105", "#010106")
_MIN_SMOOTHED = 100
MAX_POINTS = 1000
_PLAIN = FuncFormatter(lambda value, _: f"{value:.3g}")
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "svg.fonttype": "none",
    # Names of runs and data sets may hold any characters, two dollar signs among them.
    "text.parse_math": False,
}


def to_png(plots: Sequence[Plot], title: str) -> bytes:
    """Returns a column of plots, the first one twice as high, as a PNG file."""
    palette = Palette()
    with rc_context(_STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.25, h_pad=0.15)
        height = 2.4 * (len(plots) + 1)
        figure = Figure(figsize=(9, height), dpi=150, layout=layout, facecolor="white")
        FigureCanvasAgg(figure)
        figure.suptitle(printable(title), x=0.03, ha="left", fontsize=15, color=palette.ink)
        ratios = [2] + [1] * (len(plots) - 1)
        grid = figure.subplots(len(plots), 1, sharex=True, squeeze=False, height_ratios=ratios)
        for axes, plot in zip(grid[:, 0], plots, strict=True):
            _draw(axes, plot, palette)
        grid[-1, 0].set_xlabel("step", color=palette.faint)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def to_svg(plot: Plot) -> str:
    """Returns a plot as an SVG element.

    Its colours are the CSS variables --ink, --faint, --grid, --main, --image and --video, which the
    page defines.
    """
    with rc_context(_STYLE | {"svg.hashsalt": plot.title}):
        figure = Figure(figsize=(5, 2.9), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        _draw(axes, plot, _PLACEHOLDERS)
        axes.set_title("", loc="left")
        axes.set_xlabel("step", color=_PLACEHOLDERS.faint)
        buffer = io.StringIO()
        no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=no_metadata)
    text = buffer.getvalue()
    # A page with several plots would contain the ids of groups several times.
    text = re.sub(r'<g id="[^"]*"', "<g", text[text.index("<svg") :])
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    for name, colour in vars(_PLACEHOLDERS).items():
        text = text.replace(colour, f"var(--{name})")
    return text


def draw_line(axes: Axes, steps: Curve, curve: Curve, colour: str, label: str) -> None:
    """Draws a curve without its NaN values; a long one as a trend line over its faint values.

    At most `MAX_POINTS` evenly spaced values are drawn, so that the report of a long run stays
    small.
    """
    known = np.isfinite(curve)
    if not known.any():
        return
    steps, curve = steps[known], curve[known]
    long = len(curve) >= _MIN_SMOOTHED
    number = min(len(curve), MAX_POINTS)
    drawn = np.linspace(0, len(curve) - 1, number).round().astype(np.int64)
    if long:
        axes.plot(steps[drawn], curve[drawn], color=colour, linewidth=0.7, alpha=0.25)
    marker = "o" if number == 1 else None
    trend = smoothed(curve) if long else curve
    axes.plot(steps[drawn], trend[drawn], color=colour, linewidth=1.6, marker=marker, label=label)


def smoothed(curve: Curve) -> Curve:
    """Returns the moving average of a curve, over a window of 2 % of its length.

    The window is centred and shrinks towards the ends, so that the ends are not biased.
    """
    max_radius = len(curve) // 100
    index = np.arange(len(curve))
    radius = np.minimum(max_radius, np.minimum(index, index[::-1]))
    sums = np.concatenate([[0.0], np.cumsum(curve)])
    means: Curve = (sums[index + radius + 1] - sums[index - radius]) / (2 * radius + 1)
    return means


def draw_legend(axes: Axes, palette: Palette) -> None:
    """Draws a legend above the plot, on the right."""
    axes.legend(
        frameon=False,
        labelcolor=palette.ink,
        fontsize=9,
        ncols=4,
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        borderaxespad=0.1,
        handlelength=1.2,
        columnspacing=1.2,
    )


def linear_scale(axes: Axes) -> None:
    """Sets a linear scale from zero, with few and short tick labels."""
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(_PLAIN)


def log_scale(axes: Axes) -> None:
    """Sets a logarithmic scale with plain tick labels: it shows fast and slow decreases alike."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axes.yaxis.set_major_formatter(_PLAIN)
    axes.yaxis.set_minor_locator(NullLocator())


def _draw(axes: Axes, plot: Plot, palette: Palette) -> None:
    axes.set_title(printable(plot.title), loc="left", fontsize=11, color=palette.ink, pad=10)
    axes.grid(axis="y", color=palette.grid, linewidth=0.8)
    axes.tick_params(colors=palette.faint, which="both", length=0, labelsize=9)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(palette.grid)
    axes.margins(x=0.01)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    plot.draw(axes, palette)
