"""Draws a dashboard by what a Prometheus answers to its expressions: our own plots, not Grafana's.

    python charts/src/pictures.py http://HOST:9090 run docs/images/dashboard-run.png --run NAME

For the pages in docs/: panels stand where Grafana puts them, and have the same numbers and curves.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

DASHBOARDS = Path(__file__).parents[1] / "dashboards"
WIDTH_IN, ROW_IN = 15.0, 0.34
POINTS = 240
ROWS = 12
"""Rows of a table that are drawn."""
LABELS, LONG = 6, 18
"""Curves of a panel that are named, and the characters of a long name."""

Answer = list[dict[str, Any]]


class Source:
    """A Prometheus, and what the variables of a dashboard are."""

    def __init__(self, url: str, variables: Mapping[str, str], minutes: float) -> None:
        self._url, self._variables = url.rstrip("/"), variables
        self._end, self._seconds = time.time(), minutes * 60
        self.step = self._seconds / POINTS

    def now(self, expression: str) -> Answer:
        """Returns the answer of this moment: each series with `value`."""
        return self._ask("query", expression, time=self._end)

    def course(self, expression: str) -> Answer:
        """Returns the answer over the time that is shown: each series with `values`."""
        begin = self._end - self._seconds
        return self._ask("query_range", expression, start=begin, end=self._end, step=self.step)

    def _ask(self, path: str, expression: str, **parameters: float) -> Answer:
        for name, value in self._variables.items():
            expression = expression.replace(f"${name}", value)
        query = urllib.parse.urlencode({"query": expression, **parameters})
        with urllib.request.urlopen(f"{self._url}/api/v1/{path}?{query}", timeout=60) as answer:
            result: Answer = json.load(answer)["data"]["result"]
        return result


def draw(name: str, source: Source) -> Figure:
    """Returns a dashboard's picture."""
    panels = json.loads((DASHBOARDS / f"{name}.json").read_text("utf-8"))["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = Figure(figsize=(WIDTH_IN, height * ROW_IN), facecolor="white")
    for panel in panels:
        place = panel["gridPos"]
        left, top = place["x"] / 24, 1 - place["y"] / height
        wide, high = place["w"] / 24, place["h"] / height
        if panel["type"] == "row":
            figure.text(0.005, top - high * 0.7, panel["title"], fontsize=12, weight="bold")
            continue
        margin = 0.3 * ROW_IN / WIDTH_IN
        inner = (
            left + (5 if panel["type"] == "timeseries" else 0.5) * margin,
            top - high + 1.5 / height,
            wide - (6 if panel["type"] == "timeseries" else 1) * margin,
            high - 2.7 / height,
        )
        axes = figure.add_axes(inner)
        axes.set_title(panel["title"], fontsize=9, loc="left", color="#333333")
        DRAWN[panel["type"]](axes, panel, source)
    return figure


def _stat(axes: Axes, panel: Mapping[str, Any], source: Source) -> None:
    axes.axis("off")
    target = panel["targets"][0]
    defaults = panel.get("fieldConfig", {}).get("defaults", {})
    words = []
    for series in source.now(target["expr"]):
        label = _legend(target.get("legendFormat", ""), series["metric"])
        value = _shown(float(series["value"][1]), defaults.get("unit", ""), defaults)
        by_name = panel.get("options", {}).get("textMode") == "name"
        several = "{{" in target.get("legendFormat", "")
        words.append(label if by_name else f"{label} {value}" if several else value)
    text = "   ".join(words) or "no data"
    size = 20 if len(text) < 14 else 12 if len(text) < 60 else 8
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=size, color="#1f60c4")


def _curves(axes: Axes, panel: Mapping[str, Any], source: Source) -> None:
    unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "")
    custom = panel.get("fieldConfig", {}).get("defaults", {}).get("custom", {})
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for target in panel["targets"]:
        for series in source.course(target["expr"]):
            label = _legend(target.get("legendFormat", ""), series["metric"])
            lines[label] = _with_gaps(series["values"], source.step)
    if not lines:
        axes.text(0.5, 0.5, "no data", ha="center", transform=axes.transAxes, color="#888888")
    if stacked and len({len(times) for times, _ in lines.values()}) == 1:
        times = next(iter(lines.values()))[0]
        axes.stackplot(times, [values for _, values in lines.values()], labels=lines, alpha=0.7)
    else:
        for label, (times, values) in lines.items():
            axes.plot(times, values, linewidth=1, label=label)
    axes.locator_params(nbins=4)
    if custom.get("scaleDistribution", {}).get("type") == "log":
        axes.set_yscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda at, _: time.strftime("%H:%M", time.gmtime(at)))
    axes.yaxis.set_major_formatter(lambda value, _: _shown(value, unit, {}))
    axes.tick_params(labelsize=6)
    axes.grid(alpha=0.25)
    if lines:
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(
            handles[:LABELS],
            labels[:LABELS],
            fontsize=6,
            frameon=False,
            ncols=3 if any(len(label) > LONG for label in labels) else 4,
            loc="upper left",
            bbox_to_anchor=(0, -0.12),
        )


def _table(axes: Axes, panel: Mapping[str, Any], source: Source) -> None:
    axes.axis("off")
    organized = [each for each in panel.get("transformations", ()) if each["id"] == "organize"]
    options = organized[0]["options"] if organized else {}
    renamed, hidden = options.get("renameByName", {}), options.get("excludeByName", {})
    units = {
        override["matcher"]["options"]: value["value"]
        for override in panel.get("fieldConfig", {}).get("overrides", ())
        for value in override["properties"]
        if value["id"] == "unit"
    }
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    columns: list[str] = []
    keys = ("cluster", "namespace", "run")
    for target in panel["targets"]:
        value_name = f"Value #{target['refId']}"
        column = renamed.get(value_name, value_name)
        for series in source.now(target["expr"]):
            labels = series["metric"]
            row = rows.setdefault(tuple(labels.get(key, "") for key in keys), {})
            cells = {k: v for k, v in labels.items() if not hidden.get(k)}
            if not (hidden.get(value_name) or hidden.get("Value")):
                cells[column] = _shown(float(series["value"][1]), units.get(column, ""), {})
            row.update(cells)
            columns += [key for key in cells if key not in columns]
    cells = [[row.get(column, "") for column in columns] for row in list(rows.values())[:ROWS]]
    if not cells:
        return
    table = axes.table(
        cells,
        colLabels=columns,
        colWidths=[0.96 / len(columns)] * len(columns),
        loc="upper left",
        cellLoc="left",
        edges="horizontal",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(7)


def _with_gaps(values: list[list[Any]], step: float) -> tuple[list[float], list[float]]:
    """Returns times and values, with a NaN wherever the series was missing for a step."""
    times: list[float] = []
    numbers: list[float] = []
    for at, value in values:
        if times and float(at) - times[-1] > 1.5 * step:
            times.append(times[-1] + step)
            numbers.append(math.nan)
        times.append(float(at))
        numbers.append(float(value))
    return times, numbers


DRAWN = {"stat": _stat, "timeseries": _curves, "table": _table}


def _legend(template: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), template)


def _shown(value: float, unit: str, defaults: Mapping[str, Any]) -> str:
    """Returns a number with its unit, about as Grafana writes it."""
    if math.isnan(value):
        return "NaN"
    for mapping in defaults.get("mappings", ()):
        if found := mapping["options"].get(f"{value:g}"):
            return str(found["text"])
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s":
        for size, word in ((86400, "d"), (3600, "h"), (60, "min")):
            if abs(value) >= 2 * size:
                return f"{value / size:.3g} {word}"
        return f"{value:.3g} s"
    if unit in ("bytes", "mbytes"):
        value *= 1 if unit == "bytes" else 2**20
        for size, word in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
            if abs(value) >= size:
                return f"{value / size:.3g} {word}"
    if unit == "sci":
        return f"{value:.4e}"
    words = {"percent": "%", "celsius": "°C", "watt": "W"}
    suffix = words.get(unit, unit.removeprefix("suffix:").strip() if ":" in unit else "")
    number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{number} {suffix}".strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="of a Prometheus")
    parser.add_argument("dashboard", choices=[path.stem for path in DASHBOARDS.glob("*.json")])
    parser.add_argument("out", type=Path)
    parser.add_argument("--run", default=".*")
    parser.add_argument("--namespace", default=".*")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate-interval", default="1m")
    options = parser.parse_args()
    variables = {
        "cluster": ".*",
        "namespace": options.namespace,
        "run": options.run,
        "__rate_interval": options.rate_interval,
    }
    source = Source(options.url, variables, options.minutes)
    draw(options.dashboard, source).savefig(options.out, dpi=80)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
