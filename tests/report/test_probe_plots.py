"""Plots of probe results."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from arlow_trainer.probe.stored import Probe
from arlow_trainer.report.plotting import Palette
from arlow_trainer.report.probe_plots import MIN_SPAN, probe_plots


@pytest.mark.parametrize("accuracy", [0.0, 0.112, 1.0])
def test_a_single_probe_has_readable_limits(accuracy: float) -> None:
    axes = Figure().subplots()
    probe_plots([Probe("set", "knn", 450, accuracy)])[0].draw(axes, Palette())
    assert axes.get_xlim() == pytest.approx((0, 468))
    low, high = axes.get_ylim()
    assert -0.021 < low < accuracy < high < 1.021
    assert high - low > MIN_SPAN / 2
