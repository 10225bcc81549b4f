"""Curves of a run: the numbers behind the lines, and the files they are drawn to."""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from arlow_trainer.probe.stored import Probe, read_probes
from arlow_trainer.report.curves import (
    curves_png,
    read_curve,
    scalar_plots,
    values,
)
from arlow_trainer.report.plotting import smoothed, to_svg
from arlow_trainer.report.probe_plots import probe_plots
from arlow_trainer.storage.store import Store
from arlow_trainer.telemetry import HISTORY_FILE, HistoryPoint
from arlow_trainer.telemetry.scalars import SCALARS


def history(steps: Sequence[int]) -> list[HistoryPoint]:
    """Points with a value for every number that has a plot, of all samples or of images."""
    others = [row.name for row in SCALARS.values() if row.plot and row.modality != "video"]
    return [
        HistoryPoint(
            step=step,
            time="2026-01-01T00:00:00+00:00",
            scalars={
                **dict.fromkeys(others, 1.0),
                "loss": 1 / step,
                "image_loss": 1.1 / step,
                **({"video_loss": 0.9 / step} if step % 2 else {}),
                "learning_rate": 1e-4 * step,
                "grad_norm": 0.5,
                "images_per_second": 100.0,
            },
        )
        for step in steps
    ]


def test_the_curve_is_read_over_a_resume(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert read_curve(store) == []
    lines = [
        json.dumps({"step": step, "time": "t", "loss": loss})
        for step, loss in ((10, 3.0), (20, 2.0), (20, 1.5), (30, 1.0))
    ]
    store.write_bytes(HISTORY_FILE, "\n".join([*lines, '{"step": 40, "ti']).encode())
    found = read_curve(store)
    assert [(point.step, point.scalars["loss"]) for point in found] == [
        (10, 3.0),
        (20, 1.5),
        (30, 1.0),
    ]


def test_what_was_not_read_is_no_number() -> None:
    found = values(history([1, 2]), "video_loss")
    assert found[0] == 0.9
    assert np.isnan(found[1])


@pytest.mark.parametrize("length", [1, 2, 99, 100, 555])
def test_the_trend_is_the_mean_of_the_neighbours(length: int) -> None:
    curve = np.random.default_rng(0).normal(size=length)
    reach = length // 100
    expected = []
    for index in range(length):
        radius = min(reach, index, length - 1 - index)
        expected.append(curve[index - radius : index + radius + 1].mean())
    assert np.allclose(smoothed(curve), expected)


@pytest.mark.parametrize("steps", [[11], range(1, 30), range(11, 3000, 10)])
def test_curves_are_a_png(steps: Sequence[int]) -> None:
    with Image.open(io.BytesIO(curves_png(history(steps), "run $a$ & <b>"))) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB"))
    # Its corners are paper, and the image and video losses have a colour each.
    assert (pixels[0, 0] == 255).all()
    for colour in ((47, 111, 219), (217, 98, 30)):
        there = (np.abs(pixels.astype(int) - colour).sum(axis=-1) < 30).any()
        assert there


def test_a_curve_without_numbers_is_drawn_empty() -> None:
    points = [HistoryPoint(step=10, time="t")]
    curves_png(points, "run")
    plots = scalar_plots(points)
    assert len(plots) == len({row.plot for row in SCALARS.values() if row.plot})
    for plot in plots:
        ElementTree.fromstring(to_svg(plot))


def test_an_svg_takes_its_colours_from_the_page() -> None:
    for plot in scalar_plots(history(range(1, 200))):
        text = to_svg(plot)
        ElementTree.fromstring(text)
        assert not re.search(r"#[0-9a-f]{6}\b", text)
        assert re.search(r"var\(--(main|image|video)\)", text)
        links = re.findall(r'(?:href|src)="([^"]*)"', text)
        assert all(link.startswith("#") for link in links)
    assert "var(--image)" in to_svg(scalar_plots(history([1, 3]))[0])


def test_the_names_of_two_svgs_differ() -> None:
    plots = scalar_plots(history([1, 3]))
    ids = [set(re.findall(r'id="([^"]*)"', to_svg(plot))) for plot in plots]
    assert sum(len(each) for each in ids) == len(set.union(*ids))


def test_a_long_curve_stays_small() -> None:
    assert len(to_svg(scalar_plots(history(range(1, 40_001)))[0])) < 200_000


@pytest.mark.parametrize(
    ("rates", "title", "lines"),
    [
        ([(50.0, 0.0), (60.0, 0.0)], "Images per second", ["--main"]),
        ([(50.0, None), (60.0, None)], "Images per second", ["--main"]),
        ([(0.0, 5.0), (0.0, 6.0)], "Clips per second", ["--main"]),
        ([(50.0, 5.0), (60.0, 6.0)], "Images and clips per second", ["--image", "--video"]),
        ([(None, None)], "Images per second", []),
    ],
)
def test_throughput_is_that_of_what_is_trained_on(
    rates: list[tuple[float | None, float | None]], title: str, lines: list[str]
) -> None:
    points = []
    for step, (images, clips) in enumerate(rates):
        scalars = {"images_per_second": images, "clips_per_second": clips}
        known = {name: rate for name, rate in scalars.items() if rate is not None}
        points.append(HistoryPoint(step=step, time="t", scalars=known))
    [plot] = [plot for plot in scalar_plots(points) if plot.title.endswith("per second")]
    assert plot.title == title
    drawn = to_svg(plot)
    assert [name for name in ("--main", "--image", "--video") if f"var({name})" in drawn] == lines


def test_probes_are_read_and_repeated_ones_replaced() -> None:
    records = [
        {"step": 20, "method": "knn", "accuracy": 0.5, "spread": 0.1, "baseline": 0.2, "data": "d"},
        {"step": 10, "method": "knn", "accuracy": 0.4, "data": "d"},
        {"step": 20, "method": "knn", "accuracy": 0.6, "spread": 0.1, "baseline": 0.2, "data": "d"},
        {"step": 20, "method": "linear", "data": "d"},
        {"step": 20, "method": "knn", "neighbors": 5, "accuracy": 0.3, "data": "d"},
        {"step": 20, "method": "knn", "neighbors": 20, "accuracy": 0.5, "data": "d"},
        {"step": 20, "method": "knn", "neighbors": 5, "accuracy": 0.4, "data": "d"},
        {"step": 20, "method": "linear", "neighbors": None, "accuracy": 0.7, "data": "d"},
        [1, 2],
    ]
    lines = [*(json.dumps(record).encode() for record in records), b'{"step": 30, "meth']
    assert read_probes(lines) == [
        Probe("d", "knn", 10, 0.4),
        Probe("d", "knn", 20, 0.6, 0.1, 0.2),
        Probe("d", "knn", 20, 0.4, neighbors=5),
        Probe("d", "knn", 20, 0.5, neighbors=20),
        Probe("d", "linear", 20, 0.7),
    ]


def test_every_data_set_has_a_probe_plot() -> None:
    probes = [
        Probe(data, method, step, 0.5, 0.1, 0.2)
        for data in ("fashion", "flowers")
        for method in ("knn", "linear")
        for step in (10, 20)
    ]
    plots = probe_plots(probes)
    assert [plot.title for plot in plots] == [
        "Probe accuracy on fashion",
        "Probe accuracy on flowers",
    ]
    for plot in plots:
        text = to_svg(plot)
        assert "knn" in text
        assert "linear" in text


def test_another_k_is_another_curve() -> None:
    [plot] = probe_plots([Probe("d", "knn", 10, 0.5, neighbors=k) for k in (5, 20)])
    text = to_svg(plot)
    assert "knn, k=5" in text
    assert "knn, k=20" in text
