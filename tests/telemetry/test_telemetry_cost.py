"""What telemetry costs a step."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from telemetry_reports import make_readout, make_report

from arlow_trainer.telemetry import Telemetry

# Half a percent of a one-second step; what is measured is a small part of it.
MAX_SECONDS = 0.005


def test_a_step_costs_far_below_half_a_percent(telemetry: Callable[..., Telemetry]) -> None:
    started = telemetry(append_history=lambda lines: None, publish_status=lambda content: None)
    for readout in (None, make_readout()):
        report = make_report(1, readout=readout)
        times = []
        for _ in range(300):
            begin = time.perf_counter()
            started.step(report)
            times.append(time.perf_counter() - begin)
        assert median(times) < MAX_SECONDS / 5
