"""The Operator dashboard: whether the operator works, and how fast."""

from __future__ import annotations

from typing import Any

from panels import (
    CLUSTER,
    NAMESPACE,
    RUN_PHASE,
    RUN_RESTARTS,
    curves,
    dashboard,
    name,
    number,
    with_rows,
)

SELECT = f'{NAMESPACE}, run=~"$run"'
REQUESTS = "arlow_operator_api_requests_total"
PASSES = "arlow_operator_pass_duration_seconds"
FAILED = 'code=~"0|401|403|429|5.."'
# Of a Prometheus' many processes, the operators'.
PROCESS = f"on (cluster, namespace, job, instance) arlow_operator_leader{{{CLUSTER}}}"


def rate(metric: str, *matchers: str) -> str:
    """PromQL of a counter's increase per second."""
    return f"rate({metric}{{{', '.join([CLUSTER, *matchers])}}}[$__rate_interval])"


def now() -> list[Any]:
    """Whether it works."""
    return [
        name(
            "Version",
            "Version of the operators; more than one during an upgrade.",
            f"count by (version) (arlow_operator_info{{{CLUSTER}}})",
            "{{version}}",
            span=3,
        ),
        number(
            "Operators",
            "Operators that look after runs; one that waits for the Lease is none.",
            f"sum(arlow_operator_leader{{{CLUSTER}}})",
            "none",
            span=3,
        ),
        number(
            "Last full pass",
            "Time since all runs were looked at. They are, each minute; the liveness probe fails "
            "above three minutes.",
            f"min(arlow_operator_last_full_pass_age_seconds{{{CLUSTER}}})",
            "s",
            span=3,
        ),
        number(
            "Runs",
            "Runs that it knows.",
            f"sum(arlow_operator_runs{{{CLUSTER}}})",
            "none",
            span=3,
        ),
        number(
            "Queue",
            "Runs that wait for a pass.",
            f"sum(arlow_operator_queue_depth{{{CLUSTER}}})",
            "none",
            span=3,
        ),
        number(
            "API errors",
            "Share of requests to the Kubernetes API without an answer, refused for rights or "
            "load, or answered with an error of the server.",
            f"(sum({rate(REQUESTS, FAILED)}) or vector(0)) / sum({rate(REQUESTS)})",
            "percentunit",
            decimals=1,
            span=3,
        ),
        number(
            "Definition",
            "Fields in which the cluster's definition of ArlowPretrain and this version differ.",
            f"max(arlow_operator_definition_differing_fields{{{CLUSTER}}})",
            "none",
            span=3,
        ),
        number(
            "Since its start",
            "A restart is one of its pod, or its liveness probe's.",
            f"time() - max(process_start_time_seconds{{{CLUSTER}}} and {PROCESS})",
            "s",
            span=3,
        ),
    ]


def passes() -> list[Any]:
    """How fast it looks after runs."""
    buckets = f"sum by (le) ({rate(f'{PASSES}_bucket')})"
    return [
        curves(
            "Passes",
            "Passes over a run per second, by how they ended. A failed one is made again after "
            "five seconds.",
            [(f"sum by (result) ({rate(f'{PASSES}_count')})", "{{result}}")],
            "suffix: /s",
        ),
        curves(
            "Duration of a pass",
            "From taking a run from the queue until all is written; above 30 s a pass is given up.",
            [
                (f"histogram_quantile(0.5, {buckets})", "median"),
                (f"histogram_quantile(0.95, {buckets})", "95th percentile"),
                (f"histogram_quantile(0.99, {buckets})", "99th percentile"),
            ],
            "s",
        ),
        curves(
            "Queue and last full pass",
            "Runs that wait, and the time since all were looked at.",
            [
                (f"sum(arlow_operator_queue_depth{{{CLUSTER}}})", "runs that wait"),
                (
                    f"min(arlow_operator_last_full_pass_age_seconds{{{CLUSTER}}})",
                    "last full pass (s ago)",
                ),
            ],
            "none",
        ),
    ]


def requests() -> list[Any]:
    """What it asks of the API, and what it hears."""
    return [
        curves(
            "API requests by verb",
            "Requests to the Kubernetes API per second; watches are not among them.",
            [(f"sum by (verb) ({rate(REQUESTS)})", "{{verb}}")],
            "suffix: /s",
            span=6,
        ),
        curves(
            "API requests by answer",
            "HTTP codes; 0 is no answer, 409 somebody who was faster, 404 what is not there (yet).",
            [(f"sum by (code) ({rate(REQUESTS)})", "{{code}}")],
            "suffix: /s",
            span=6,
        ),
        curves(
            "API errors",
            "Share of requests without an answer, refused for rights or load, or answered with an "
            "error of the server.",
            [(f"(sum({rate(REQUESTS, FAILED)}) or vector(0)) / sum({rate(REQUESTS)})", "errors")],
            "percentunit",
            span=6,
        ),
        curves(
            "Watches",
            "Objects per second that the watches told of. A watch that dies ends the process; runs "
            "that train bring few.",
            [(f"sum by (resource) ({rate('arlow_operator_watch_events_total')})", "{{resource}}")],
            "suffix: /s",
            span=6,
        ),
    ]


def process() -> list[Any]:
    """What it costs."""
    cpu = f"rate(process_cpu_seconds_total{{{CLUSTER}}}[$__rate_interval])"
    return [
        curves(
            "Memory",
            "Resident memory of the operators' processes.",
            [(f"process_resident_memory_bytes{{{CLUSTER}}} and {PROCESS}", "{{instance}}")],
            "bytes",
            span=12,
        ),
        curves(
            "CPU",
            "CPU cores that the operators' processes use.",
            [(f"{cpu} and {PROCESS}", "{{instance}}")],
            "none",
            span=12,
        ),
    ]


def runs() -> list[Any]:
    """What it did for the chosen runs."""
    return [
        curves(
            "Runs by phase",
            "The chosen runs, by phase.",
            [(f"sum by (phase) ({RUN_PHASE}{{{SELECT}}})", "{{phase}}")],
            "none",
            span=12,
        ),
        curves(
            "Restarts by cause",
            "Restarts of the chosen runs since their beginning.",
            [(f"sum by (cause) ({RUN_RESTARTS}{{{SELECT}}})", "{{cause}}")],
            "none",
            span=12,
        ),
    ]


def build() -> str:
    """Returns the dashboard as JSON."""
    board = dashboard("Operator", "Whether the operator works, and how fast.", RUN_PHASE)
    rows = {
        "Now": now(),
        "Passes": passes(),
        "Kubernetes API": requests(),
        "Process": process(),
        "Runs": runs(),
    }
    return with_rows(board, rows)
