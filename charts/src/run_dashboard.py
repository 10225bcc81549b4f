"""Writes the Run dashboard for Grafana: `make docs`, or `python charts/src/run_dashboard.py`.

A test fails when the committed charts/dashboards/run.json is not what this file writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import common, stat, table, timeseries
from grafana_foundation_sdk.builders.dashboard import (
    AnnotationQuery,
    Dashboard,
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
    ScaleDistribution,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    DataTransformerConfig,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from arlow_trainer.telemetry.scalars import SCALARS, Scalar

TARGET = Path(__file__).parent.parent / "dashboards" / "run.json"

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
# A run without a cluster has no namespace label, and `.*` matches that too.
SELECT = 'namespace=~"$namespace", run="$run"'

UNITS = {"s": "s", "bytes": "bytes", "ratio": "percentunit"}
"""Grafana's name of a scalar's unit."""

Query = tuple[str, str]
"""A PromQL expression and the legend of its series."""


def last(metric: str) -> str:
    """PromQL of a gauge; one series, whichever pod the run is in by now."""
    return f"max({metric}{{{SELECT}}})"


def rate(metric: str) -> str:
    """PromQL of a counter's increase per second."""
    return f"sum(rate({metric}{{{SELECT}}}[$__rate_interval]))"


def targets(panel: Any, queries: list[Query], *, instant: bool = False) -> Any:
    """Gives a panel its queries."""
    for letter, (expr, legend) in zip("ABCDEFGH", queries, strict=False):
        query = Dataquery().datasource(SOURCE).expr(expr).legend_format(legend).ref_id(letter)
        panel.with_target(query.instant() if instant else query.range())
    return panel


def number(
    title: str, description: str, expr: str, unit: str, *, decimals: int | None = None
) -> stat.Panel:
    """A panel with one number and its recent course behind it."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .height(4)
        .span(4)
        .unit(unit)
        .color_mode(BigValueColorMode.VALUE)
        .graph_mode(BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(neutral())
    )
    if decimals is not None:
        panel.decimals(decimals)
    return targets(panel, [(expr, title)])


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


def logarithmic(panel: timeseries.Panel) -> timeseries.Panel:
    """Shows powers of two evenly."""
    return panel.scale_distribution(
        common.ScaleDistributionConfig().type(ScaleDistribution.LOG).log(2)
    )


def progress() -> list[Any]:
    """How far the run is, in numbers."""
    phase = (
        stat.Panel()
        .title("Phase")
        .description("What the run does now, as rank 0 reports.")
        .datasource(SOURCE)
        .height(4)
        .span(4)
        .text_mode(BigValueTextMode.NAME)
        .color_mode(BigValueColorMode.NONE)
        .graph_mode(BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    in_phase = f"max by (phase) (arlow_run_phase{{{SELECT}}}) == 1"
    return [
        targets(phase, [(in_phase, "{{phase}}")], instant=True),
        number(
            "Progress",
            "Share of the planned steps made.",
            f"{last('arlow_global_step')} / {last('arlow_planned_steps')}",
            "percentunit",
            decimals=1,
        ),
        number("Step", "Optimisation steps made.", last("arlow_global_step"), "locale"),
        number(
            "Time left",
            "Remaining steps at the median time of the recent ones.",
            last("arlow_eta_seconds"),
            "s",
        ),
        number(
            "Since the last step",
            "Grows while a run hangs.",
            f"time() - {last('arlow_last_step_timestamp_seconds')}",
            "s",
        ),
        number(
            "Since the last checkpoint",
            "What a crash now would cost at most.",
            f"time() - {last('arlow_checkpoint_last_success_timestamp_seconds')}",
            "s",
        ),
    ]


def learning() -> list[Any]:
    """Whether the tower learns, and whether its numbers stay finite."""
    return [
        curves(
            "Loss",
            "Mean over samples of each sample's mean over its masked patches.",
            [
                (last("arlow_loss"), "all"),
                (last("arlow_image_loss"), "images"),
                (last("arlow_video_loss"), "clips"),
            ],
            "none",
        ),
        curves(
            "Gradient norm",
            "Global norm before clipping: the last step's, and the largest between two read-outs.",
            [
                (last("arlow_grad_norm"), "last step"),
                (last("arlow_grad_norm_max"), "largest"),
            ],
            "none",
        ),
        curves(
            "Learning rate",
            "Linear warm-up, then cosine.",
            [(last("arlow_learning_rate"), "learning rate")],
            "sci",
        ),
        logarithmic(
            curves(
                "Loss scale",
                "Dynamic loss scale of fp16; absent in other precisions.",
                [(last("arlow_loss_scale"), "loss scale")],
                "none",
                span=6,
            )
        ),
        curves(
            "Steps lost",
            "Share of steps that changed nothing, and of those among them that no loss scale "
            "explains.",
            [
                (f"{rate('arlow_overflow_steps_total')} / {rate('arlow_steps_total')}", "lost"),
                (
                    f"{rate('arlow_non_finite_steps_total')} / {rate('arlow_steps_total')}",
                    "NaN or Inf",
                ),
            ],
            "percentunit",
            span=6,
        ),
        curves(
            "Largest attention logit",
            "Of the tower, on one sample of rank 0. Grows before attention collapses or fp16 "
            "overflows.",
            [(last("arlow_max_attention_logit"), "logit")],
            "none",
            span=6,
        ),
        curves(
            "Probe accuracy",
            "Test accuracy of the last checkpoint probed; absent in a run without a probe.",
            [(f"max by (method) (arlow_probe_accuracy{{{SELECT}}})", "{{method}}")],
            "percentunit",
            span=6,
        ),
    ]


def speed() -> list[Any]:
    """How fast it trains, and what the time is spent on."""
    per_step = f"/ on() group_left() {rate('arlow_steps_total')}"
    phases = f"sum by (phase) (rate(arlow_step_phase_seconds_total{{{SELECT}}}[$__rate_interval]))"
    waiting = f'arlow_step_phase_seconds_total{{{SELECT}, phase="data"}}'
    buckets = f"sum by (le) (rate(arlow_step_seconds_bucket{{{SELECT}}}[$__rate_interval]))"
    stacked = curves(
        "Step time by phase",
        "Seconds of a step, stacked; data is the wait for the loader, reduce the communication.",
        [(f"{phases} {per_step}", "{{phase}}")],
        "s",
    )
    stacked.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    return [
        curves(
            "Throughput",
            "Images and clips per second over all devices.",
            [
                (rate("arlow_images_total"), "images"),
                (rate("arlow_video_clips_total"), "clips"),
            ],
            "suffix: /s",
        ),
        curves(
            "Model FLOPs utilisation",
            "Model FLOPs of visible and decoder tokens over the peak of all devices.",
            [(last("arlow_model_flops_utilization_ratio"), "MFU")],
            "percentunit",
        ),
        curves(
            "Tokens",
            "Tokens per second over all devices, images and clips alike.",
            [(rate("arlow_tokens_total"), "tokens")],
            "suffix: /s",
        ),
        stacked.fill_opacity(60),
        curves(
            "Step time",
            "Median of the recent steps, and 95th percentile.",
            [
                (last("arlow_median_step_seconds"), "median"),
                (f"histogram_quantile(0.95, {buckets})", "95th percentile"),
            ],
            "s",
        ),
        curves(
            "Data wait and rank skew",
            "Share of the step spent waiting for data; forward and backward time of the slowest "
            "rank less the fastest's.",
            [
                (
                    f"sum(rate({waiting}[$__rate_interval])) / {rate('arlow_step_seconds_sum')}",
                    "data wait (share)",
                ),
                (last("arlow_rank_skew_seconds"), "rank skew (s)"),
            ],
            "none",
        ),
        curves(
            "GPU memory",
            "Peak memory allocated on rank 0's GPU; absent on a CPU.",
            [(last("arlow_gpu_memory_bytes"), "allocated")],
            "bytes",
        ),
        curves(
            "Skipped samples",
            "Broken files left out and replaced since the process's start, each counted once.",
            [(last("arlow_skipped_samples_total"), "skipped")],
            "none",
        ),
        curves(
            "Time in steps",
            "Share of the time spent in steps, saving between them included; the rest is start, "
            "loading and the last checkpoint.",
            [(rate("arlow_step_seconds_sum"), "in steps")],
            "percentunit",
        ),
    ]


def checkpoints() -> list[Any]:
    """What a crash would cost, and what saving costs."""
    return [
        curves(
            "Checkpoint age",
            "Time since the last committed checkpoint.",
            [(f"time() - {last('arlow_checkpoint_last_success_timestamp_seconds')}", "age")],
            "s",
        ),
        curves(
            "Checkpoint time",
            "From capture to commit, and how long training waited for it.",
            [
                (last("arlow_checkpoint_duration_seconds"), "capture to commit"),
                (last("arlow_checkpoint_stall_seconds"), "training waited"),
            ],
            "s",
        ),
        curves(
            "Checkpoint size",
            "Bytes of the last checkpoint.",
            [(last("arlow_checkpoint_bytes"), "size")],
            "bytes",
            span=4,
        ),
        curves(
            "Checkpoints written",
            "Committed and failed since the process's start.",
            [
                (last("arlow_checkpoints_total"), "committed"),
                (last("arlow_checkpoint_failures_total"), "failed"),
            ],
            "none",
            span=4,
        ),
    ]


def about() -> list[Any]:
    """What the run is, and which build trains it."""
    panels = []
    for title, metric in (("Run", "arlow_run_info"), ("Build", "arlow_build_info")):
        panel = (
            table.Panel()
            .title(title)
            .description("Labels of the running process.")
            .datasource(SOURCE)
            .height(5)
            .span(12)
        )
        hidden = dict.fromkeys(("Time", "Value", "__name__"), True)
        options = {"excludeByName": hidden, "indexByName": {}, "renameByName": {}}
        panel.with_transformation(DataTransformerConfig(id_val="organize", options=options))
        query = Dataquery().datasource(SOURCE).expr(f"{metric}{{{SELECT}}}").ref_id("A").instant()
        panels.append(panel.with_target(query.format(PromQueryFormat.TABLE)))
    return panels


def scalar_curve(row: Scalar, metric: str) -> timeseries.Panel:
    """A panel for one number of the table of scalars."""
    title = row.name.replace("_", " ").capitalize()
    query = last(f"{metric}_total") if row.counter else last(metric)
    return curves(title, f"{row.help}.", [(query, title)], UNITS.get(row.unit, "none"))


def undrawn(section: str, drawn: set[str]) -> list[Any]:
    """Panels for a section's scalars whose metrics no other panel draws."""
    return [
        scalar_curve(row, row.metric)
        for row in SCALARS.values()
        if row.section == section
        and row.metric is not None
        and not {row.metric, f"{row.metric}_total"} & drawn
    ]


def annotation(name: str, color: str, metric: str) -> AnnotationQuery:
    """A mark at the time that a metric holds; see `finished` for the rest of it."""
    expr = f"{last(metric)} * 1000"
    return AnnotationQuery().name(name).datasource(SOURCE).icon_color(color).expr(expr)


def finished(document: dict[str, Any]) -> dict[str, Any]:
    """Returns the dashboard with what the SDK has no builder for.

    Panels are numbered in their order; annotations stand where their values say (ms since 1970).
    """
    for number, panel in enumerate(document["panels"], 1):
        panel["id"] = number
    for one in document["annotations"]["list"]:
        one |= {"useValueForTime": True, "titleFormat": one["name"], "step": "30s"}
    return document


def variable(name: str, label: str, query: str) -> QueryVariable:
    """A choice among a label's values."""
    return (
        QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )


ROWS: list[tuple[str, Callable[[], list[Any]]]] = [
    ("Progress", progress),
    ("Learning", learning),
    ("Speed", speed),
    ("Checkpoints", checkpoints),
    ("About", about),
]


def build() -> str:
    """Returns the dashboard as JSON."""
    run_query = 'label_values(arlow_run_info{namespace=~"$namespace"}, run)'
    dashboard = (
        Dashboard("Arlow Pretrain / Run")
        .uid("arlow-run")
        .description("One pretraining run: progress, learning, speed, checkpoints.")
        .tags(["arlow"])
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(
            variable("namespace", "Namespace", "label_values(arlow_run_info, namespace)")
            .include_all(True)
            .all_value(".*")
        )
        .with_variable(variable("run", "Run", run_query))
        .annotation(annotation("Started", "orange", "arlow_run_start_timestamp_seconds"))
        .annotation(
            annotation("Checkpoint", "green", "arlow_checkpoint_last_success_timestamp_seconds")
        )
    )
    rows = {title: panels() for title, panels in ROWS}
    encoder = JSONEncoder()
    expressions = [encoder.encode(panel.build()) for panels in rows.values() for panel in panels]
    drawn = set(re.findall(r"\barlow_[a-z_]+", " ".join(expressions)))
    for title, panels in rows.items():
        dashboard.with_row(Row(title))
        for panel in [*panels, *undrawn(title, drawn)]:
            dashboard.with_panel(panel)
    document = json.loads(JSONEncoder(sort_keys=True).encode(dashboard.build()))
    return json.dumps(finished(document), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    TARGET.write_text(build(), encoding="utf-8")
