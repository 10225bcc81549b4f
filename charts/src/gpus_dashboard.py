"""The GPUs dashboard: what dcgm-exporter tells of the GPUs of runs, where it is installed.

Only metrics that it has by itself: none of the profiling ones (DCGM_FI_PROF_*), which some GPUs and
settings lack.
"""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.models.dashboard import ValueMap, ValueMappingResult
from panels import CLUSTER, NAMESPACE, RUN_PHASE, curves, dashboard, number, with_rows

SELECT = f'{NAMESPACE}, run=~"$run"'
OF_GPU = "cluster_namespace_run_Hostname_gpu_metric:DCGM_FI_DEV:max"
MEAN = "cluster_namespace_run_metric:DCGM_FI_DEV:avg"
SUM = "cluster_namespace_run_metric:DCGM_FI_DEV:sum"
RUN = "{{namespace}}/{{run}}"
GPU = "{{run}}: {{Hostname}}, GPU {{gpu}}"
SHOWN = 20
"""Curves of a panel that has one for each GPU."""

MISSING = "none: dcgm-exporter is not installed or not scraped"


def mean(metric: str) -> str:
    """PromQL of a number's mean over a run's GPUs."""
    return f'avg by (cluster, namespace, run) ({MEAN}{{{SELECT}, metric="{metric}"}})'


def total(metric: str) -> str:
    """PromQL of a number's sum over a run's GPUs."""
    return f'sum by (cluster, namespace, run) ({SUM}{{{SELECT}, metric="{metric}"}})'


def each(metric: str) -> str:
    """PromQL of a number of each GPU."""
    return f'{OF_GPU}{{{SELECT}, metric="{metric}"}}'


def now() -> list[Any]:
    """Whether there is anything to see."""
    known = number(
        "GPUs that dcgm-exporter tells of",
        "All GPUs of the cluster, whoever uses them. Without dcgm-exporter this dashboard is "
        "empty: the GPU operator installs it, docs/gpu-cluster.md says how.",
        f"count(DCGM_FI_DEV_GPU_UTIL{{{CLUSTER}}}) or vector(0)",
        "none",
        span=6,
    )
    missing = {"0": ValueMappingResult(text=MISSING, color="orange")}
    return [
        known.mappings([ValueMap(missing)]),
        number(
            "GPUs of the chosen runs",
            "Those that it knows to be a run's: it must be told to look for pods "
            "(DCGM_EXPORTER_KUBERNETES, which the GPU operator sets).",
            f"count({each('GPU_UTIL')}) or vector(0)",
            "none",
            span=6,
        ),
        number(
            "Utilisation",
            "Mean over these GPUs: the share of time in which any kernel ran.",
            f"avg({each('GPU_UTIL')})",
            "percent",
            decimals=0,
            span=4,
        ),
        number("Power", "Of these GPUs together.", f"sum({each('POWER_USAGE')})", "watt", span=4),
        number(
            "GPUs with an XID",
            "GPUs whose last XID is not 0; the alert ArlowGpuFault tells which are faults.",
            f"count({each('XID_ERRORS')} > 0) or vector(0)",
            "none",
            span=4,
        ),
    ]


def by_run() -> list[Any]:
    """A curve for each run."""
    return [
        curves(
            "Utilisation by run",
            "Mean over a run's GPUs: the share of time in which any kernel ran.",
            [(mean("GPU_UTIL"), RUN)],
            "percent",
        ),
        curves(
            "Memory traffic by run",
            "Mean over a run's GPUs: the share of time in which memory was read or written.",
            [(mean("MEM_COPY_UTIL"), RUN)],
            "percent",
        ),
        curves(
            "Memory in use by run",
            "Share of the memory of a run's GPUs that is allocated, reserved by torch included.",
            [(f"{total('FB_USED')} / ({total('FB_USED')} + {total('FB_FREE')})", RUN)],
            "percentunit",
        ),
        curves(
            "Power by run",
            "Of all GPUs of a run.",
            [(total("POWER_USAGE"), RUN)],
            "watt",
        ),
        curves(
            "Clock by run",
            "Mean clock of the multiprocessors; it falls when a GPU is too hot or short of power.",
            [(mean("SM_CLOCK"), RUN)],
            "suffix: MHz",
        ),
        curves(
            "Temperature by run",
            "Mean over a run's GPUs.",
            [(mean("GPU_TEMP"), RUN)],
            "celsius",
        ),
    ]


def by_gpu() -> list[Any]:
    """The GPUs that stand out."""
    return [
        curves(
            "Least used GPUs",
            f"The {SHOWN} lowest of the chosen runs. One that lags holds up all of its run.",
            [(f"bottomk({SHOWN}, {each('GPU_UTIL')})", GPU)],
            "percent",
            span=12,
        ),
        curves(
            "Slowest clocks",
            f"The {SHOWN} lowest of the chosen runs.",
            [(f"bottomk({SHOWN}, {each('SM_CLOCK')})", GPU)],
            "suffix: MHz",
            span=12,
        ),
        curves(
            "Hottest GPUs",
            f"The {SHOWN} highest of the chosen runs.",
            [(f"topk({SHOWN}, {each('GPU_TEMP')})", GPU)],
            "celsius",
        ),
        curves(
            "Fullest memory",
            f"The {SHOWN} highest of the chosen runs, in MiB.",
            [(f"topk({SHOWN}, {each('FB_USED')})", GPU)],
            "mbytes",
        ),
        curves(
            "PCIe retries",
            f"The {SHOWN} highest of the chosen runs, in the hour before: a bad link or riser.",
            [(f"topk({SHOWN}, increase({each('PCIE_REPLAY_COUNTER')}[1h]))", GPU)],
            "none",
        ),
    ]


def build() -> str:
    """Returns the dashboard as JSON."""
    board = dashboard(
        "GPUs",
        "The GPUs of runs, as dcgm-exporter tells of them, where it is installed.",
        RUN_PHASE,
    )
    return with_rows(board, {"Now": now(), "By run": by_run(), "By GPU": by_gpu()})
