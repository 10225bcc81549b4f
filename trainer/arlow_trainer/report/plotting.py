"""How plots look, and their way to a PNG file or into a page."""

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
    """A plot over steps: its title, and what draws its lines."""

    title: str
    draw: Callable[[Axes, Palette], None]


# Colours that stand for a page's own, which follow its light or dark scheme.
_VARIABLES = Palette("#010101", "#010102", "#010103", "#010104", "#010105", "#010106")
_SMOOTH_FROM = 100
MAX_POINTS = 1000
_PLAIN = FuncFormatter(lambda value, _: f"{value:.3g}")
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "svg.fonttype": "none",
}


def to_png(plots: Sequence[Plot], title: str) -> bytes:
    """Returns plots below each other, the first one twice as high, as a PNG file."""
    palette = Palette()
    with rc_context(_STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.25, h_pad=0.15)
        height = 2.4 * (len(plots) + 1)
        figure = Figure(figsize=(9, height), dpi=150, layout=layout, facecolor="white")
        FigureCanvasAgg(figure)
        figure.suptitle(title, x=0.03, ha="left", fontsize=15, color=palette.ink, parse_math=False)
        ratios = [2] + [1] * (len(plots) - 1)
        grid = figure.subplots(len(plots), 1, sharex=True, squeeze=False, height_ratios=ratios)
        for axes, plot in zip(grid[:, 0], plots, strict=True):
            _draw(axes, plot, palette)
        grid[-1, 0].set_xlabel("step", color=palette.faint)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def to_svg(plot: Plot) -> str:
    """Returns a plot as an SVG element for a page that defines its colours: the CSS variables
    --ink, --faint, --grid, --main, --image and --video."""
    with rc_context(_STYLE | {"svg.hashsalt": plot.title}):
        figure = Figure(figsize=(5, 2.9), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        _draw(axes, plot, _VARIABLES)
        axes.set_title("", loc="left")
        axes.set_xlabel("step", color=_VARIABLES.faint)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    # Names of groups would repeat in a page with several plots.
    text = re.sub(r'<g id="[^"]*"', "<g", text[text.index("<svg") :])
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    for name, colour in vars(_VARIABLES).items():
        text = text.replace(colour, f"var(--{name})")
    return text


def line(axes: Axes, steps: Curve, curve: Curve, colour: str, label: str) -> None:
    """Draws a curve, NaN left out; a long one as a trend over its faint values.

    At most `MAX_POINTS` evenly spaced ones are drawn: a month's curve must not fill megabytes.
    """
    known = np.isfinite(curve)
    if not known.any():
        return
    steps, curve = steps[known], curve[known]
    long = len(curve) >= _SMOOTH_FROM
    number = min(len(curve), MAX_POINTS)
    kept = np.linspace(0, len(curve) - 1, number).round().astype(np.int64)
    if long:
        axes.plot(steps[kept], curve[kept], color=colour, linewidth=0.7, alpha=0.25)
    marker = "o" if number == 1 else None
    trend = smoothed(curve) if long else curve
    axes.plot(steps[kept], trend[kept], color=colour, linewidth=1.6, marker=marker, label=label)


def smoothed(curve: Curve) -> Curve:
    """Returns the mean of each value with its neighbours, two in a hundred of the curve.

    The window shrinks towards the ends, so that they are not pulled inwards.
    """
    reach = len(curve) // 100
    place = np.arange(len(curve))
    radius = np.minimum(reach, np.minimum(place, place[::-1]))
    sums = np.concatenate([[0.0], np.cumsum(curve)])
    means: Curve = (sums[place + radius + 1] - sums[place - radius]) / (2 * radius + 1)
    return means


def legend(axes: Axes, palette: Palette) -> None:
    """Names the lines above the plot, at its right end."""
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


def plain_scale(axes: Axes) -> None:
    """A linear scale from zero, with few and short numbers."""
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(_PLAIN)


def log_scale(axes: Axes) -> None:
    """A logarithmic scale with plain numbers: it shows a fast fall and a slow one alike."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axes.yaxis.set_major_formatter(_PLAIN)
    axes.yaxis.set_minor_locator(NullLocator())


def _draw(axes: Axes, plot: Plot, palette: Palette) -> None:
    axes.set_title(plot.title, loc="left", fontsize=11, color=palette.ink, pad=10)
    axes.grid(axis="y", color=palette.grid, linewidth=0.8)
    axes.tick_params(colors=palette.faint, which="both", length=0, labelsize=9)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(palette.grid)
    axes.margins(x=0.01)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    plot.draw(axes, palette)
