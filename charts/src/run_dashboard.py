"""The Run dashboard: one run's progress, learning, speed and checkpoints, and its life."""

from __future__ import annotations

import re
from typing import Any

from grafana_foundation_sdk.builders import common, table, timeseries
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import ScaleDistribution
from grafana_foundation_sdk.models.dashboard import DataTransformerConfig
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from panels import (
    NAMESPACE,
    RUN_GOODPUT,
    RUN_NUMBER,
    RUN_RESTARTS,
    RUN_TIME,
    SOURCE,
    annotation,
    curves,
    dashboard,
    name,
    number,
    stacked,
    with_rows,
)

from arlow_trainer.telemetry.scalars import SCALARS, Scalar

SELECT = f'{NAMESPACE}, run="$run"'
# What has started is known by its process, what waits by the operator.
RUNS = f'__name__=~"arlow_run_info|{RUN_NUMBER}"'

UNITS = {"s": "s", "bytes": "bytes", "ratio": "percentunit"}
"""Grafana's name of a scalar's unit."""


def last(metric: str) -> str:
    """PromQL of a gauge; one series, whichever pod the run is in by now."""
    return f"max({metric}{{{SELECT}}})"


def rate(metric: str) -> str:
    """PromQL of a counter's increase per second."""
    return f"sum(rate({metric}{{{SELECT}}}[$__rate_interval]))"


def logarithmic(panel: timeseries.Panel) -> timeseries.Panel:
    """Shows powers of two evenly."""
    return panel.scale_distribution(
        common.ScaleDistributionConfig().type(ScaleDistribution.LOG).log(2)
    )


def progress() -> list[Any]:
    """How far the run is, in numbers."""
    return [
        name(
            "Phase",
            "What the run does now, as rank 0 reports.",
            f"max by (phase) (arlow_run_phase{{{SELECT}}}) == 1",
            "{{phase}}",
        ),
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
        stacked(
            curves(
                "Step time by phase",
                "Seconds of a step, stacked; data is the wait for the loader, reduce the "
                "communication.",
                [(f"{phases} {per_step}", "{{phase}}")],
                "s",
            )
        ),
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


def of_operator(metric: str) -> str:
    """PromQL of a number of the run's status."""
    return f'max({RUN_NUMBER}{{{SELECT}, metric="{metric}"}})'


def life() -> list[Any]:
    """The run's life over all its attempts, as the operator tells of it."""

    def spent(kind: str) -> str:
        return f'sum({RUN_TIME}{{{SELECT}, kind="{kind}"}})'

    return [
        number("Attempt", "Number of the attempt.", of_operator("attempt"), "none"),
        number(
            "Restarts",
            "Restarts in all, for any cause.",
            f"sum({RUN_RESTARTS}{{{SELECT}}})",
            "none",
        ),
        number(
            "Goodput",
            "Share of productive time in that for which the run held its GPUs; queueing apart.",
            f"max({RUN_GOODPUT}{{{SELECT}}})",
            "percentunit",
            decimals=1,
        ),
        number("Queued", "Time in queues, over all attempts.", spent("queued"), "s"),
        number(
            "Starting",
            "From an attempt's beginning to its first step, over all attempts.",
            spent("starting"),
            "s",
        ),
        number("Lost", "Training that restarts threw away.", spent("lost"), "s"),
        stacked(
            curves(
                "Where the time went",
                "Since the run's beginning. A restart turns productive time into lost time.",
                [(f"sum by (kind) ({RUN_TIME}{{{SELECT}}})", "{{kind}}")],
                "s",
                span=12,
            )
        ),
        curves(
            "Restarts by cause",
            "Restarts since the run's beginning, by their cause.",
            [(f"sum by (cause) ({RUN_RESTARTS}{{{SELECT}}})", "{{cause}}")],
            "none",
            span=12,
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
    title = row.name.replace("_", " ").capitalize().replace("Gpu", "GPU")
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


def build() -> str:
    """Returns the dashboard as JSON."""
    rows = {
        "Progress": progress(),
        "Learning": learning(),
        "Speed": speed(),
        "Checkpoints": checkpoints(),
        "Life": life(),
        "About": about(),
    }
    encoder = JSONEncoder()
    expressions = [encoder.encode(panel.build()) for panels in rows.values() for panel in panels]
    drawn = set(re.findall(r"\barlow_[a-z_]+", " ".join(expressions)))
    for section, panels in rows.items():
        panels += undrawn(section, drawn)
    board = dashboard(
        "Run",
        "One pretraining run: progress, learning, speed, checkpoints, and its attempts.",
        RUNS,
        one_run=True,
    )
    marks = {
        "Attempt": ("purple", of_operator("attempt_start_timestamp_seconds")),
        "Started": ("orange", last("arlow_run_start_timestamp_seconds")),
        "Checkpoint": ("green", last("arlow_checkpoint_last_success_timestamp_seconds")),
    }
    for title, (color, expr) in marks.items():
        board.annotation(annotation(title, color, expr))
    return with_rows(board, rows)
