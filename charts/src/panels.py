"""What the dashboards share: queries, panels, variables, links, and how they become JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from string import ascii_uppercase
from typing import Any

from grafana_foundation_sdk.builders import common, stat, table, timeseries
from grafana_foundation_sdk.builders.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
    Row,
    ThresholdsConfig,
)
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
TAG = "arlow"

# `.*` also matches a label that is not there: few have a cluster, a run outside has no namespace.
CLUSTER = 'cluster=~"$cluster"'
NAMESPACE = f'{CLUSTER}, namespace=~"$namespace"'

# Series of runs that charts/alerts/operator.yaml records, and the labels that all of them have.
RUN_NUMBER = "cluster_namespace_run_metric:arlow_operator_run:max"
RUN_PHASE = "cluster_namespace_run_phase:arlow_operator_run_phase:max"
RUN_RESTARTS = "cluster_namespace_run_cause:arlow_operator_run_restarts:max"
RUN_TIME = "cluster_namespace_run_kind:arlow_operator_run_goodput_seconds:max"
RUN_GOODPUT = "cluster_namespace_run:arlow_operator_run_goodput:ratio"
BY_RUN = "by (cluster, namespace, run)"

Query = tuple[str, str]
"""A PromQL expression and the legend of its series."""


def targets(panel: Any, queries: Iterable[Query], *, instant: bool = False) -> Any:
    """Gives a panel its queries."""
    for letter, (expr, legend) in zip(ascii_uppercase, queries, strict=False):
        query = Dataquery().datasource(SOURCE).expr(expr).legend_format(legend).ref_id(letter)
        panel.with_target(query.instant() if instant else query.range())
    return panel


def _stat(title: str, description: str, span: int) -> stat.Panel:
    panel = stat.Panel().title(title).description(description)
    return panel.datasource(SOURCE).height(4).span(span)


def number(
    title: str,
    description: str,
    expr: str,
    unit: str,
    *,
    decimals: int | None = None,
    legend: str = "",
    span: int = 4,
) -> stat.Panel:
    """A panel with one number, or one of each series, and its recent course behind it."""
    panel = (
        _stat(title, description, span)
        .unit(unit)
        .color_mode(BigValueColorMode.VALUE)
        .graph_mode(BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(neutral())
    )
    if decimals is not None:
        panel.decimals(decimals)
    return targets(panel, [(expr, legend or title)])


def name(title: str, description: str, expr: str, legend: str, *, span: int = 4) -> stat.Panel:
    """A panel with a word: a label of the series that there is now."""
    panel = (
        _stat(title, description, span)
        .text_mode(BigValueTextMode.NAME)
        .color_mode(BigValueColorMode.NONE)
        .graph_mode(BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    return targets(panel, [(expr, legend)], instant=True)


def neutral() -> ThresholdsConfig:
    """One colour for all values: the alerts judge, not the panels."""
    steps = [Threshold(value=None, color="blue")]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def curves(
    title: str, description: str, queries: list[Query], unit: str, *, span: int = 8
) -> timeseries.Panel:
    """A panel with curves over time."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .height(8)
        .span(span)
        .unit(unit)
        .line_width(1)
        .fill_opacity(8)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    return targets(panel, queries)


def stacked(panel: timeseries.Panel) -> timeseries.Panel:
    """Stacks a panel's curves."""
    panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    return panel.fill_opacity(60)


def rows_of(
    title: str, description: str, columns: dict[str, str], hidden: Iterable[str] = ()
) -> table.Panel:
    """A table with a row for each set of labels, and a column for each query.

    Args:
        title, description: of the panel.
        columns: the expressions, by the title of their column; the first has a row for each.
        hidden: labels and columns that are not shown.
    """
    panel = table.Panel().title(title).description(description).datasource(SOURCE).span(24)
    renamed = {}
    for letter, (column, expr) in zip(ascii_uppercase, columns.items(), strict=False):
        query = Dataquery().datasource(SOURCE).expr(expr).ref_id(letter).instant()
        panel.with_target(query.format(PromQueryFormat.TABLE))
        renamed[f"Value #{letter}"] = column
    shown_as = {column: letter for letter, column in renamed.items()}
    excluded = ["Time", "__name__", "metric", *(shown_as.get(each, each) for each in hidden)]
    options = {
        "excludeByName": dict.fromkeys(excluded, True),
        "indexByName": {},
        "renameByName": renamed,
    }
    panel.with_transformation(DataTransformerConfig(id_val="merge", options={}))
    panel.with_transformation(DataTransformerConfig(id_val="organize", options=options))
    return panel


def annotation(title: str, color: str, expr: str) -> AnnotationQuery:
    """A mark at the times that an expression has as its values, in seconds; see `finished`."""
    return AnnotationQuery().name(title).datasource(SOURCE).icon_color(color).expr(f"{expr} * 1000")


def variable(label: str, query: str, *, all_of_them: bool = True) -> QueryVariable:
    """A choice among a label's values, named as the label is."""
    found = (
        QueryVariable(label)
        .label(label.capitalize())
        .datasource(SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )
    return found.include_all(True).all_value(".*") if all_of_them else found


def dashboard(title: str, description: str, metric: str, *, one_run: bool = False) -> Dashboard:
    """A dashboard without panels, with the variables that all have and the links to the others.

    Args:
        title, description: of the dashboard.
        metric: has the labels cluster, namespace and run that are to be chosen among: a name, or a
            matcher of `__name__`.
        one_run: whether one run is chosen, and not all of them.
    """
    select = "{" + (metric if "=" in metric else f'__name__="{metric}"')
    links = (
        DashboardLink("Arlow dashboards")
        .type(DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .keep_time(True)
        .include_vars(True)
    )
    return (
        Dashboard(f"Arlow Pretrain / {title}")
        .uid(f"arlow-{title.lower()}")
        .description(description)
        .tags([TAG])
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(links)
        .with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(variable("cluster", f"label_values({select}}}, cluster)"))
        .with_variable(variable("namespace", f"label_values({select}, {CLUSTER}}}, namespace)"))
        .with_variable(
            variable("run", f"label_values({select}, {NAMESPACE}}}, run)", all_of_them=not one_run)
        )
    )


def with_rows(board: Dashboard, rows: dict[str, list[Any]]) -> str:
    """Returns a dashboard with rows of panels as JSON."""
    for title, panels in rows.items():
        board.with_row(Row(title))
        for panel in panels:
            board.with_panel(panel)
    document = json.loads(JSONEncoder(sort_keys=True).encode(board.build()))
    return json.dumps(finished(document), indent=2, sort_keys=True) + "\n"


def finished(document: dict[str, Any]) -> dict[str, Any]:
    """Returns the dashboard with what the SDK has no builder for.

    Panels are numbered in their order; annotations stand where their values say (ms since 1970).
    """
    for index, panel in enumerate(document["panels"], 1):
        panel["id"] = index
    for one in document.get("annotations", {}).get("list", []):
        one |= {"useValueForTime": True, "titleFormat": one["name"], "step": "30s"}
    return document
