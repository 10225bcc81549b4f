"""The Fleet dashboard: all runs, a row each, and what their GPUs did."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.builders.dashboard import DashboardLink
from grafana_foundation_sdk.models.dashboard import DashboardLinkType, DynamicConfigValue
from panels import (
    BY_RUN,
    NAMESPACE,
    RUN_GOODPUT,
    RUN_NUMBER,
    RUN_PHASE,
    RUN_RESTARTS,
    curves,
    dashboard,
    number,
    rows_of,
    stacked,
    with_rows,
)

SELECT = f'{NAMESPACE}, run=~"$run"'
PHASES = "cluster_namespace_phase:arlow_operator_run_phase:sum"
GPUS = "cluster_namespace_phase:arlow_operator_run_gpus:sum"
GPU_HOURS = "cluster_namespace_kind:arlow_operator_run_gpu_hours:sum"
TOTALS = "cluster_namespace_metric:arlow_operator_run:sum"
RESTARTS = "cluster_namespace_cause:arlow_operator_run_restarts:increase1h"

# The run's own dashboard, at the time and in the cluster that are shown here.
RUN_LINK = (
    "/d/arlow-run?${datasource:queryparam}&${cluster:queryparam}&${__url_time_range}"
    "&var-namespace=${__data.fields.namespace}&var-run=${__data.fields.run}"
)
COLORS = {
    "Running": "green",
    "Starting": "blue",
    "Restarting": "orange",
    "Queued": "purple",
    "Pending": "purple",
    "Suspended": "text",
    "Succeeded": "semi-dark-green",
    "Failed": "red",
}


def of_run(metric: str) -> str:
    """PromQL of a number of each run."""
    return f'max {BY_RUN} ({RUN_NUMBER}{{{SELECT}, metric="{metric}"}})'


def overview() -> list[Any]:
    """The fleet in numbers."""
    ours = 'alertname=~"Arlow.+", alertname!="ArlowRunJob", alertstate="firing"'
    return [
        number(
            "Runs by phase",
            "Runs that exist, by the phase that they are in.",
            f"sum by (phase) ({PHASES}{{{NAMESPACE}}}) > 0",
            "none",
            legend="{{phase}}",
            span=8,
        ),
        number(
            "GPUs that train",
            "GPUs of the runs that are Running.",
            f'sum({GPUS}{{{NAMESPACE}, phase="Running"}})',
            "none",
        ),
        number(
            "GPUs that are waited for",
            "GPUs that Queued and Pending runs ask for.",
            f'sum({GPUS}{{{NAMESPACE}, phase=~"Queued|Pending"}})',
            "none",
        ),
        number(
            "Stalled runs",
            "Runs that hold their GPUs and make no step: their condition TrainingStalled is true.",
            f'sum({TOTALS}{{{NAMESPACE}, metric="training_stalled"}})',
            "none",
        ),
        number(
            "Firing alerts",
            "Alerts of this project that fire now.",
            f"count(ALERTS{{{NAMESPACE}, {ours}}}) or vector(0)",
            "none",
        ),
    ]


def runs() -> list[Any]:
    """A row for each run."""
    not_over = f'{RUN_PHASE}{{{SELECT}, phase=~"Starting|Running|Restarting"}} == 1'
    age = f"time() - {of_run('checkpoint_timestamp_seconds')}"
    columns = {
        "is in": f"max by (cluster, namespace, run, phase) ({RUN_PHASE}{{{SELECT}}} == 1)",
        "progress": f"{of_run('steps')} / {of_run('planned_steps')}",
        "ETA": of_run("eta_seconds"),
        "loss": of_run("loss"),
        "images/s": of_run("images_per_second"),
        "MFU": of_run("model_flops_utilization_ratio"),
        "goodput": f"max {BY_RUN} ({RUN_GOODPUT}{{{SELECT}}})",
        "restarts": f"sum {BY_RUN} ({RUN_RESTARTS}{{{SELECT}}})",
        "checkpoint age": f"{age} and on (cluster, namespace, run) ({not_over})",
        "stalled": of_run("training_stalled"),
        "GPUs": of_run("gpus"),
    }
    panel = rows_of(
        "Runs",
        "Every run that exists, as its status says. ETA, images per second and MFU are of runs "
        "that train, the checkpoint's age of those that hold GPUs. Goodput is the share of "
        "productive time in that for which a run held its GPUs. A run's name leads to its own "
        "dashboard.",
        columns,
        hidden=["is in"],
    )
    for column, unit in {
        "progress": "percentunit",
        "ETA": "s",
        "MFU": "percentunit",
        "goodput": "percentunit",
        "checkpoint age": "s",
    }.items():
        panel.override_by_name(column, [DynamicConfigValue("unit", unit)])
    panel.override_by_name("loss", [DynamicConfigValue("decimals", 4)])
    panel.override_by_name("images/s", [DynamicConfigValue("decimals", 0)])
    panel.override_by_name("run", [DynamicConfigValue("links", [link_to_run()])])
    return [_colored(panel.height(14).filterable(True))]


def link_to_run() -> dict[str, Any]:
    """The link of a run's name."""
    link = DashboardLink("Show the run").type(DashboardLinkType.LINK).url(RUN_LINK).build()
    return {"title": link.title, "url": link.url, "targetBlank": False}


def _colored(panel: table.Panel) -> table.Panel:
    options = {phase: {"color": color, "text": phase} for phase, color in COLORS.items()}
    mappings = [{"type": "value", "options": options}]
    properties = {"mappings": mappings, "custom.cellOptions": {"type": "color-text"}}
    values = [DynamicConfigValue(key, value) for key, value in properties.items()]
    yes = [
        {"type": "value", "options": {"0": {"text": "no"}, "1": {"text": "yes", "color": "red"}}}
    ]
    panel.override_by_name(
        "stalled",
        [
            DynamicConfigValue("mappings", yes),
            DynamicConfigValue("custom.cellOptions", {"type": "color-text"}),
        ],
    )
    return panel.override_by_name("phase", values)


def gpu_time() -> list[Any]:
    """What the GPUs did, by namespace."""
    hours = {
        kind: f'sum by (cluster, namespace) ({GPU_HOURS}{{{NAMESPACE}, kind="{kind}"}})'
        for kind in ("productive", "lost", "starting", "queued")
    }
    return [
        rows_of(
            "GPU hours by namespace",
            "GPU hours of the runs that exist: kept training, training that restarts threw away, "
            "starting, and waiting for a queue (hours for which no GPU was held).",
            hours,
        )
        .height(8)
        .span(8)
        .unit("none")
        .decimals(1),
        stacked(
            curves(
                "GPUs by phase",
                "GPUs that runs ask for, by the phase that they are in.",
                [
                    (
                        f"sum by (phase) ({GPUS}{{{NAMESPACE}, "
                        'phase=~"Running|Starting|Restarting|Queued|Pending"})',
                        "{{phase}}",
                    )
                ],
                "none",
            )
        ),
        curves(
            "Restarts by cause",
            "Restarts in the hour before, by their cause.",
            [(f"sum by (cause) ({RESTARTS}{{{NAMESPACE}}})", "{{cause}}")],
            "none",
        ),
        curves(
            "Throughput",
            "Images and clips per second of all runs that train, by namespace.",
            [
                (
                    f'sum by (namespace) ({TOTALS}{{{NAMESPACE}, metric="images_per_second"}})',
                    "{{namespace}}",
                )
            ],
            "suffix: /s",
            span=12,
        ),
        curves(
            "Runs over time",
            "Runs that exist, by phase.",
            [
                (
                    f"sum by (phase) ({PHASES}{{{NAMESPACE}}})",
                    "{{phase}}",
                )
            ],
            "none",
            span=12,
        ),
    ]


def build() -> str:
    """Returns the dashboard as JSON."""
    board = dashboard(
        "Fleet", "All runs that the operator looks after, and what their GPUs do.", RUN_PHASE
    )
    return with_rows(board, {"Now": overview(), "Runs": runs(), "GPU time": gpu_time()})
