"""Whether a tower learns: accuracy of simple classifiers on its frozen features."""

from .background import BackgroundProbe
from .evaluate import Probed, run_probe
from .results import ProbeResult

__all__ = ["BackgroundProbe", "ProbeResult", "Probed", "run_probe"]
