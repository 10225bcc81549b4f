"""manifests/operator/ is what the chart renders."""

from __future__ import annotations

import runpy
import tomllib

import yaml
from rendering import CHART

REPOSITORY = CHART.parent


def test_the_committed_manifests_are_the_charts() -> None:
    generator = runpy.run_path(str(CHART / "src" / "manifests.py"))
    for name, text in generator["manifests"]().items():
        committed = (generator["TARGET"] / name).read_text("utf-8")
        assert committed == text, f"{name}: run `make docs`"


def test_chart_and_package_have_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    assert chart["version"] == chart["appVersion"] == project["version"]
