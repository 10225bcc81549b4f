"""Every number that a run logs, as one ordered table.

The gauges of `/metrics`, `history.jsonl`, log lines, `/status`, `arlow watch`, the report's curves,
what experiment trackers are given, the Run dashboard and docs/metrics.md are made by iterating over
it. A new number is two edits: its row here, and its value in `run/reporting.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Literal

from arlow_trainer.telemetry.times import duration

ScalarValues = Mapping[str, float | None]
"""Values by the name of their row in `SCALARS`; None is not applicable."""

STEP_PHASES: Mapping[str, str] = {
    "data": "the wait for the loader",
    "forward": "",
    "backward": "",
    "reduce": "communication of the gradients, and the wait for the slowest rank",
    "optimizer": "the update, and the gathering of the new weights",
    "checkpoint": "how long training waited for one",
}
"""What a step's time is spent on, with its explanation where the name is not enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """A number that a run logs, and where it goes.

    name: its key in a read-out, in `history.jsonl` and in JSON log lines.
    unit: base unit, empty for a plain number.
    help: its meaning, for `/metrics` and docs/metrics.md.
    section: the section of docs/metrics.md and of the dashboard.
    text: its value as text, for log lines and `arlow watch`, None for name and value; may return
        an empty text for a value that is not worth showing.
    metric: name of its gauge on `/metrics`.
    counter: the metric is a counter, and the value a running total.
    history, log, status: whether it goes to `history.jsonl`, log lines, `/status` (in camelCase).
    watch_row: the row of `arlow watch` that shows it; needs `status`.
    plot: title of its plot in the report, with `{}` for the labels of the lines that have values;
        needs `history`. Several numbers may share a plot when their `modality` differs.
    log_scale: whether that plot is logarithmic.
    modality: the modality that it is of, None for all.
    part_of: the number of which it is a part: shown to people only beside another part of it.
    """

    name: str
    unit: str = ""
    help: str
    section: Literal["Learning", "Speed"]
    text: Callable[[float], str] | None = None
    metric: str | None = None
    counter: bool = False
    history: bool = False
    log: bool = False
    status: bool = False
    watch_row: str | None = None
    plot: str | None = None
    log_scale: bool = False
    modality: Literal["image", "video"] | None = None
    part_of: str | None = None

    def show(self, value: float) -> str:
        """Returns a value as text."""
        if self.text is not None:
            return self.text(value)
        return f"{self.name.replace('_', ' ')} {value:.4g}"


def _rate(unit: str) -> Callable[[float], str]:
    return lambda rate: f"{rate:,.1f} {unit}" if rate else ""


_ROWS = (
    Scalar(
        name="loss",
        help="Loss, mean over the samples of the steps since the last read-out",
        section="Learning",
        text="loss {:.4f}".format,
        metric="arlow_loss",
        history=True,
        log=True,
        status=True,
        watch_row="loss",
        plot="Loss",
        log_scale=True,
    ),
    Scalar(
        name="image_loss",
        help="Loss of the images alone",
        section="Learning",
        text="images {:.4f}".format,
        metric="arlow_image_loss",
        history=True,
        log=True,
        status=True,
        watch_row="loss",
        plot="Loss",
        log_scale=True,
        modality="image",
        part_of="loss",
    ),
    Scalar(
        name="video_loss",
        help="Loss of the video clips alone",
        section="Learning",
        text="clips {:.4f}".format,
        metric="arlow_video_loss",
        history=True,
        log=True,
        status=True,
        watch_row="loss",
        plot="Loss",
        log_scale=True,
        modality="video",
        part_of="loss",
    ),
    Scalar(
        name="learning_rate",
        help="Learning rate",
        section="Learning",
        text="learning rate {:.3g}".format,
        metric="arlow_learning_rate",
        history=True,
        log=True,
        status=True,
        watch_row="learning rate",
        plot="Learning rate",
    ),
    Scalar(
        name="grad_norm",
        help="Global gradient norm of the last step before clipping; a step that overflowed has "
        "none and leaves the previous value",
        section="Learning",
        text="gradient norm {:.3g}".format,
        metric="arlow_grad_norm",
        history=True,
        log=True,
        status=True,
        watch_row="learning rate",
        plot="Gradient norm before clipping",
        log_scale=True,
    ),
    Scalar(
        name="grad_norm_max",
        help="Largest gradient norm of the steps since the previous read-out; when all of them "
        "were skipped, the previous value stays",
        section="Learning",
        metric="arlow_grad_norm_max",
    ),
    Scalar(
        name="loss_scale",
        help="Dynamic loss scale of fp16",
        section="Learning",
        text="loss scale {:g}".format,
        metric="arlow_loss_scale",
        history=True,
        log=True,
    ),
    Scalar(
        name="overflows",
        unit="steps",
        help="Steps that changed nothing, for a loss or gradient that was not finite, whether the "
        "loss scale explains it or not",
        section="Learning",
        metric="arlow_overflow_steps",
        counter=True,
    ),
    Scalar(
        name="max_attention_logit",
        help="Largest absolute attention logit of the tower on one sample of rank 0, at every "
        "tenth read-out; the decoder's are not measured",
        section="Learning",
        metric="arlow_max_attention_logit",
    ),
    Scalar(
        name="max_residual_activation",
        help="Largest absolute activation of the tower's residual stream, measured with the logit; "
        "fp16 ends at 65,504",
        section="Learning",
        metric="arlow_max_residual_activation",
    ),
    Scalar(
        name="images_per_second",
        unit="images/s",
        help="Images trained on per second over all ranks, in the recent steps",
        section="Speed",
        text=_rate("images/s"),
        history=True,
        log=True,
        status=True,
        watch_row="throughput",
        plot="{} per second",
        modality="image",
    ),
    Scalar(
        name="clips_per_second",
        unit="clips/s",
        help="Video clips trained on per second over all ranks, in the recent steps",
        section="Speed",
        text=_rate("clips/s"),
        history=True,
        log=True,
        status=True,
        watch_row="throughput",
        plot="{} per second",
        modality="video",
    ),
    Scalar(
        name="median_step_seconds",
        unit="s",
        help="Median time of the recent steps",
        section="Speed",
        text="{:.3g} s/step".format,
        metric="arlow_median_step_seconds",
        status=True,
        watch_row="throughput",
    ),
    Scalar(
        name="model_flops_utilization",
        unit="ratio",
        help="Model FLOPs per second over the peak of all devices, in the recent steps",
        section="Speed",
        text="MFU {:.1%}".format,
        metric="arlow_model_flops_utilization_ratio",
        status=True,
        watch_row="throughput",
    ),
    Scalar(
        name="rank_skew_seconds",
        unit="s",
        help="Forward and backward time of the slowest rank less that of the fastest, in the step "
        "read out",
        section="Speed",
        metric="arlow_rank_skew_seconds",
    ),
    Scalar(
        name="gpu_memory_bytes",
        unit="bytes",
        help="Peak GPU memory allocated by rank 0",
        section="Speed",
        metric="arlow_gpu_memory_bytes",
    ),
    Scalar(
        name="gpu_memory_reserved_bytes",
        unit="bytes",
        help="Peak GPU memory that rank 0's allocator took from the driver, holes included",
        section="Speed",
        metric="arlow_gpu_memory_reserved_bytes",
    ),
    Scalar(
        name="gpu_allocator_retries",
        unit="retries",
        help="Allocations of rank 0 that succeeded only after unused GPU memory was given back",
        section="Speed",
        metric="arlow_gpu_allocator_retries",
        counter=True,
    ),
    Scalar(
        name="image_micro_batch",
        unit="images",
        help="Images of the largest micro-batch computed; it falls where memory runs out",
        section="Speed",
        metric="arlow_image_micro_batch",
    ),
    Scalar(
        name="clip_micro_batch",
        unit="clips",
        help="Video clips of the largest micro-batch computed; it falls where memory runs out",
        section="Speed",
        metric="arlow_clip_micro_batch",
    ),
    Scalar(
        name="skipped_samples",
        unit="files",
        help="Broken files left out and replaced, over all ranks, each counted once",
        section="Speed",
        metric="arlow_skipped_samples",
        counter=True,
    ),
    Scalar(
        name="eta_seconds",
        unit="s",
        help="Remaining steps at the median time of the recent ones",
        section="Speed",
        text=lambda seconds: f"ETA {duration(seconds)}" if seconds else "",
        metric="arlow_eta_seconds",
        log=True,
        status=True,
    ),
)
SCALARS: dict[str, Scalar] = {row.name: row for row in _ROWS}


def rows_to_show(known: Container[str]) -> list[Scalar]:
    """Returns the rows of the known names that people are shown: without a number's only part."""
    rows = [row for row in SCALARS.values() if row.name in known]
    parts = Counter(row.part_of for row in rows)
    return [row for row in rows if row.part_of is None or parts[row.part_of] > 1]


def texts(values: ScalarValues) -> list[tuple[Scalar, str]]:
    """Returns the values that people are shown as text, each with its row."""
    known = {name: value for name, value in values.items() if value is not None}
    shown = [(row, row.show(known[row.name])) for row in rows_to_show(known)]
    return [(row, text) for row, text in shown if text]
