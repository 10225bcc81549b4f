"""How fast the Fleet dashboard opens on a Prometheus with 500 runs, with and without its rules."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from tests.support.ports import free_port

from .fleet_series import RANKS, SCRAPE_S, SHORT_S, fill, fleet
from .result import Result, milliseconds

CHART = Path(__file__).parents[1] / "charts"
RULES = {
    rule["record"]: rule["expr"]
    for group in yaml.safe_load((CHART / "alerts" / "operator.yaml").read_text())["groups"]
    for rule in group["rules"]
    if "record" in rule
}
# What nobody would write out: a subquery over each minute of an hour.
RESTARTS = "increase(arlow_operator_run_restarts_total[1h])"
BY_HAND = {
    "cluster_namespace_cause:arlow_operator_run_restarts:increase1h": (
        "sum by (cluster, namespace, cause) ("
        f'label_replace({RESTARTS}, "namespace", "$1", "exported_namespace", "(.+)"))'
    )
}
# Grafana asks for about a point a pixel; browsers ask a server for six things at a time.
STEP_S, AT_A_TIME = 30, 6
TARGET_S = 1.0
REFERENCE = re.compile(r"\b(\w+:\w+:\w+)(?:\{([^}]*)\})?")


@dataclass(frozen=True)
class Sizes:
    """How many runs, over how many hours, and how often each panel is asked."""

    runs: int
    hours: float
    rounds: int


FULL = Sizes(500, 6, 3)
TOY = Sizes(5, 0.25, 2)


@dataclass(frozen=True)
class Query:
    """An expression of a panel."""

    panel: str
    expression: str
    instant: bool

    def written_out(self) -> Query:
        """The same asked of the operator's own series."""
        return Query(self.panel, written_out(self.expression), self.instant)


def panels() -> list[Query]:
    """Returns the expressions of the Fleet dashboard, for all runs."""
    document = json.loads((CHART / "dashboards" / "fleet.json").read_text())
    return [
        Query(
            panel["title"],
            re.sub(r"\$(cluster|namespace|run)", ".*", target["expr"]),
            bool(target.get("instant")),
        )
        for panel in document["panels"]
        for target in panel.get("targets", [])
    ]


def written_out(expression: str, limits: Mapping[str, str] | None = None) -> str:
    """Returns an expression with what the rules record in place of its name.

    What is asked of a recorded series, such as its phase, is asked of the series that it comes
    from, as one would who writes it by hand.

    Args:
        expression: PromQL.
        limits: matchers by their label, for what has that label and no matcher of it.
    """

    def replaced(found: re.Match[str]) -> str:
        name, matchers = found.groups()
        if name not in RULES:
            return found[0]
        labels = set(name.partition(":")[0].split("_"))
        asked = {label: text for label, text in (limits or {}).items() if label in labels}
        for matcher in filter(None, (matchers or "").split(",")):
            label, _, value = matcher.strip().partition("=")
            if value != '~".*"':
                asked[label.rstrip("!")] = matcher.strip()
        if name in BY_HAND:
            return f"({BY_HAND[name]})"
        return f"({_limited(written_out(RULES[name], asked), asked)})"

    return REFERENCE.sub(replaced, expression)


def _limited(expression: str, asked: Mapping[str, str]) -> str:
    """Puts matchers into the selectors of the operator's own series."""
    for series, label in (
        ("phase", "phase"),
        ("restarts_total", "cause"),
        ("goodput_seconds", "kind"),
    ):
        if label in asked:
            plain = rf"\barlow_operator_run_{series}\b(?!\{{)"
            expression = re.sub(plain, f"arlow_operator_run_{series}{{{asked[label]}}}", expression)
    if "metric" in asked:
        values = asked["metric"].partition('"')[2].rstrip('"')
        one_name = f'{{__name__=~"arlow_operator_run_({values})"}}'
        expression = re.sub(
            r'\{__name__=~"arlow_operator_run_\(gpus\|.*\)"\}', one_name, expression
        )
    return expression


class Server:
    """A Prometheus that only answers."""

    def __init__(self, port: int, end: int, seconds: float) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"
        self._end, self._seconds = end, seconds

    def ask(self, query: Query) -> tuple[float, int]:
        """Returns the seconds that an answer takes, and its number of series."""
        parameters: dict[str, Any] = {"query": query.expression}
        if query.instant:
            parameters["time"] = self._end
        else:
            parameters |= {"start": self._end - self._seconds, "end": self._end, "step": STEP_S}
        path = "query" if query.instant else "query_range"
        began = time.perf_counter()
        url = f"{self._url}/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=120) as answer:
            result = json.load(answer)["data"]["result"]
        return time.perf_counter() - began, len(result)

    def open_all(self, queries: list[Query]) -> float:
        """Returns the seconds until all are answered, some at a time as a browser asks."""
        began = time.perf_counter()
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            list(pool.map(self.ask, queries))
        return time.perf_counter() - began

    def series(self) -> int:
        """Returns how many series there are now."""
        query = Query("", 'count({__name__=~".+"})', True)
        parameters = urllib.parse.urlencode({"query": query.expression, "time": self._end})
        with urllib.request.urlopen(f"{self._url}/query?{parameters}", timeout=120) as answer:
            [found] = json.load(answer)["data"]["result"]
        return int(found["value"][1])


@contextmanager
def serving(folder: Path, end: int, seconds: float) -> Iterator[Server]:
    """Runs a Prometheus on blocks that are there."""
    port = free_port()
    config = folder.with_suffix(".yml")
    config.write_text("{}")
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    with subprocess.Popen(command) as process:
        try:
            deadline = time.monotonic() + 120
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise
                    time.sleep(0.2)
            yield Server(port, end, seconds)
        finally:
            process.terminate()


def measure(sizes: Sizes, show: Callable[[str], None]) -> Result:
    """Measures every panel of the Fleet dashboard, and what the rules cost."""
    title = "The Fleet dashboard"
    if not (shutil.which("prometheus") and shutil.which("promtool")):
        return Result(
            title, "Not run: this machine has no Prometheus (apt-get install prometheus)."
        )
    seconds = int(sizes.hours * 3600)
    end = int(time.time()) // 60 * 60
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "tsdb"
        series = list(fleet(sizes.runs))
        show(f"{len(series):,} series are written")
        samples = fill(folder, series, end, seconds)
        show(f"{samples:,} samples are served")
        # The last sample is older than the end by less than an interval.
        with serving(folder, end, seconds) as server:
            return _table(title, sizes, server, samples)


def _table(title: str, sizes: Sizes, server: Server, samples: int) -> Result:
    queries = panels()
    plain = [query.written_out() for query in queries]
    times: dict[tuple[str, bool], list[float]] = {}
    empty = []
    for number in range(sizes.rounds):
        for pair in zip(queries, plain, strict=True):
            took = [server.ask(query) for query in pair]
            if number == 0 and {answer for _, answer in took} & {0}:
                empty.append(pair[0].expression)
            for recorded, (spent, _) in zip((True, False), took, strict=True):
                times.setdefault((f"{pair[0].panel}|{number}", recorded), []).append(spent)
    if empty:
        raise AssertionError(f"no answer to {empty}")
    titles = list(dict.fromkeys(query.panel for query in queries))

    def of_panel(panel: str, recorded: bool) -> float:
        return median(sum(times[f"{panel}|{n}", recorded]) for n in range(sizes.rounds))

    whole = {
        recorded: median(
            server.open_all(queries if recorded else plain) for _ in range(sizes.rounds)
        )
        for recorded in (True, False)
    }
    cost = {
        record: median(server.ask(Query(record, expr, True))[0] for _ in range(sizes.rounds))
        for record, expr in RULES.items()
        if "DCGM" not in record
    }
    rows = [
        (
            panel,
            str(sum(query.panel == panel for query in queries)),
            milliseconds(of_panel(panel, True)),
            milliseconds(of_panel(panel, False)),
            f"{of_panel(panel, False) / of_panel(panel, True):.1f}",
        )
        for panel in titles
    ]
    rows.append(
        (
            f"all of them, {AT_A_TIME} at a time",
            str(len(queries)),
            milliseconds(whole[True]),
            milliseconds(whole[False]),
            f"{whole[False] / whole[True]:.1f}",
        )
    )
    slowest = max(cost, key=cost.__getitem__)
    met = "met" if whole[True] < TARGET_S else "missed"
    how = (
        f"A Prometheus with {server.series():,} series that are alive and {samples:,} samples: "
        f"{sizes.runs} runs of {RANKS} GPUs each. What the operator tells of them is there for "
        f"{sizes.hours:g} hours, a sample each {SCRAPE_S} s, and what is recorded of that each "
        f"{STEP_S} s; the trainers' and dcgm-exporter's for the last {SHORT_S // 60} minutes, "
        "since the Fleet dashboard asks for none of them. The pages are the real ones, of invented "
        "statuses; the blocks were written by `promtool tsdb create-blocks-from`. Every expression "
        f"is asked for all runs, now or over {sizes.hours:g} hours with a point each {STEP_S} s, "
        "with the recorded series and written out as the operator's own, in turn, the median of "
        f"{sizes.rounds} rounds. A panel's time is the sum of its expressions'."
    )
    findings = [
        f"The dashboard with the rules: **{milliseconds(whole[True])}** until the last answer. "
        f"Target: under {TARGET_S:g} s: {met}.",
        f"Without them: {milliseconds(whole[False])}.",
        f"The rules, evaluated once: {milliseconds(sum(cost.values()))} together, each {STEP_S} s; "
        f"the slowest is `{slowest}` with {milliseconds(cost[slowest])}.",
    ]
    header = ("panel", "expressions", "with the rules", "without", "ratio")
    return Result(title, how, header, rows, findings)
