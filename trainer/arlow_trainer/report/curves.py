"""A run's curves: loss, learning rate, throughput, gradient norm."""

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


def read_curve(store: Store) -> list[HistoryPoint]:
    """Returns the run's history, empty where there is none. Raises StoreError."""
    lines = read_lines(store, HISTORY_FILE)
    return read_history(line.decode("utf-8", "replace") for line in lines)


def values(points: Sequence[HistoryPoint], field: str) -> Curve:
    """Returns a field over the points, NaN where it was not read."""
    found = (getattr(point, field) for point in points)
    return np.array([np.nan if value is None else value for value in found], dtype=np.float64)


def curves_png(points: Sequence[HistoryPoint], title: str) -> bytes:
    """Returns loss, learning rate and throughput below each other, as a PNG file."""
    return to_png([loss_plot(points), learning_rate_plot(points), throughput_plot(points)], title)


def loss_plot(points: Sequence[HistoryPoint]) -> Plot:
    """The loss, of images and videos apart where there are both."""
    steps, images, videos = (values(points, f) for f in ("step", "image_loss", "video_loss"))

    def draw(axes: Axes, palette: Palette) -> None:
        mixed = bool(np.isfinite(images).any() and np.isfinite(videos).any())
        if mixed:
            draw_line(axes, steps, images, palette.image, "images")
            draw_line(axes, steps, videos, palette.video, "videos")
        draw_line(axes, steps, values(points, "loss"), palette.main, "all samples")
        if mixed:
            draw_legend(axes, palette)
        log_scale(axes)

    return Plot("Loss, log scale", draw)


def learning_rate_plot(points: Sequence[HistoryPoint]) -> Plot:
    """The learning rate."""

    def draw(axes: Axes, palette: Palette) -> None:
        draw_line(
            axes, values(points, "step"), values(points, "learning_rate"), palette.main, "rate"
        )
        linear_scale(axes)

    return Plot("Learning rate", draw)


def throughput_plot(points: Sequence[HistoryPoint]) -> Plot:
    """Images and clips per second of the steps before each read-out; of each only where some were
    seen."""
    steps = values(points, "step")
    rates = {kind: values(points, f"{kind}_per_second") for kind in ("images", "clips")}
    seen = [kind for kind, rate in rates.items() if (np.nan_to_num(rate) > 0).any()]

    def draw(axes: Axes, palette: Palette) -> None:
        colours = {"images": palette.image, "clips": palette.video}
        for kind in seen:
            colour = colours[kind] if len(seen) > 1 else palette.main
            draw_line(axes, steps, rates[kind], colour, kind)
        if len(seen) > 1:
            draw_legend(axes, palette)
        linear_scale(axes)

    return Plot(f"{' and '.join(seen or ['images']).capitalize()} per second", draw)


def gradient_norm_plot(points: Sequence[HistoryPoint]) -> Plot:
    """The global gradient norm."""

    def draw(axes: Axes, palette: Palette) -> None:
        draw_line(axes, values(points, "step"), values(points, "grad_norm"), palette.main, "norm")
        log_scale(axes)

    return Plot("Gradient norm before clipping, log scale", draw)
