"""Measures what a tower learns: accuracy of simple classifiers on its frozen features."""

from arlow_trainer.probe.background import BackgroundProbe
from arlow_trainer.probe.evaluate import Probed, run_probe
from arlow_trainer.probe.results import ProbeResult

__all__ = ["BackgroundProbe", "ProbeResult", "Probed", "run_probe"]
