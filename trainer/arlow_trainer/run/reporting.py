"""What the training loop reports to telemetry, and how telemetry is connected to the run.

`StepReporter` supplies the value of every number in telemetry/scalars.py that is read at a step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain

import torch

from arlow_trainer.checkpoint.layout import checkpoint_name
from arlow_trainer.checkpoint.reader import CheckpointInfo
from arlow_trainer.checkpoint.retention import prune
from arlow_trainer.checkpoint.training_state import (
    Progress,
    TrainingState,
    changed_data,
    changed_settings,
)
from arlow_trainer.checkpoint.writer import SaveEvent
from arlow_trainer.config import ArlowPretrain, stored_run
from arlow_trainer.config.errors import ArlowError, Interrupted
from arlow_trainer.config.shown_text import printable
from arlow_trainer.config.status import LastCheckpoint
from arlow_trainer.data import Skipped, StepBatch, modality_at
from arlow_trainer.data.decoder import too_many_broken
from arlow_trainer.engine import (
    Ranks,
    StepRunner,
    device_name,
    effective_precision,
    learning_rate,
    peak_flops,
)
from arlow_trainer.plan.flops import clip_training_flops, image_training_flops
from arlow_trainer.plan.tokens import tokens_per_clip, tokens_per_image
from arlow_trainer.probe import BackgroundProbe
from arlow_trainer.run.attempt import AttemptProgress
from arlow_trainer.run.options import TrainOptions
from arlow_trainer.run.reasons import lost_a_peer
from arlow_trainer.storage.events import EventLog
from arlow_trainer.storage.jsonl import StoredLines
from arlow_trainer.storage.store import Store
from arlow_trainer.telemetry import (
    HISTORY_FILE,
    STATUS_FILE,
    CheckpointReport,
    ResumeReport,
    ScalarValues,
    StepReport,
    Telemetry,
    TelemetryOptions,
)

# An attention logit costs a forward pass of one sample: a percent of a rank's step where that is
# small.
_READOUTS_PER_LOGIT = 10


class StepReporter:
    """Reports every step, with a read-out of the device at the logging interval."""

    def __init__(
        self,
        run: ArlowPretrain,
        telemetry: Telemetry,
        runner: StepRunner,
        ranks: Ranks,
        progress: Progress,
        total_steps: int,
        samples: int,
    ) -> None:
        """`progress` is the run's own: its loss and skipped files are kept up to date here.

        `samples` are those of all sets.
        """
        self._run, self._telemetry = run, telemetry
        self._runner, self._ranks = runner, ranks
        self._progress, self._total_steps = progress, total_steps
        training = run.spec.training
        self._image_tokens = tokens_per_image(training).total
        self._clip_tokens = tokens_per_clip(training).total
        self._image_flops = image_training_flops(training)
        self._clip_flops = clip_training_flops(training)
        self._most_skipped = training.data.most_skipped(samples)
        self._skipped_before = len(progress.skipped_files)
        self._last = 0.0
        self._readouts = 0

    def start(self) -> None:
        """Starts the clock of the first step."""
        self._last = time.perf_counter()

    def skip(self, skipped: Sequence[Skipped]) -> None:
        """Counts and reports the broken files of all ranks; call on every rank.

        Raises DataError on every rank when there are more than `data.maxSkipped` since the run's
        first step, over all its resumes.
        """
        known = self._progress.skipped_files
        for file in chain.from_iterable(self._ranks.gather(skipped)):
            # A file's name need not be text, which the checkpoint is.
            name, reason = printable(file.name), printable(file.reason)
            if name not in known:
                known[name] = reason
                if self._ranks.first:
                    self._telemetry.skipped(name, reason)
        if len(known) > self._most_skipped:
            raise too_many_broken(known, self._most_skipped)

    def after_step(self, batch: StepBatch) -> None:
        """Reports the step on a batch; call on every rank, after every step."""
        step = batch.step + 1
        reading = step % self._run.spec.training.log_every_steps == 0 or step == self._total_steps
        phases = self._runner.clock.collect(wait=reading)
        computed = phases.get("forward", 0.0) + phases.get("backward", 0.0)
        readout = self._read_out(batch, computed) if reading else None
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        images, clips = self._count(batch.step)
        self._telemetry.step(
            StepReport(
                step=step,
                total_steps=self._total_steps,
                seconds=seconds,
                images=images,
                clips=clips,
                tokens=images * self._image_tokens + clips * self._clip_tokens,
                flops=images * self._image_flops + clips * self._clip_flops,
                phase_seconds=phases,
                readout=readout,
            )
        )

    def _count(self, step: int) -> tuple[int, int]:
        training, size = self._run.spec.training, self._run.spec.global_batch_size
        first = step * size
        clips = sum(
            modality_at(training.seed, index, training.data.video_probability) == "video"
            for index in range(first, first + size)
        )
        return size - clips, clips

    def _read_out(self, batch: StepBatch, computed: float) -> ScalarValues:
        """Returns the values of the scalars, which the table in telemetry/scalars.py describes."""
        device = self._ranks.device
        loss, image_loss, video_loss = self._runner.take_losses().means(self._ranks)
        self._progress.loss = loss
        memory = reserved = retries = None
        if device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(device)
            reserved = torch.cuda.max_memory_reserved(device)
            retries = torch.cuda.memory_stats(device)["num_alloc_retries"]
        logit = residual = None
        if self._ranks.first and self._readouts % _READOUTS_PER_LOGIT == 0:
            logit, residual = self._runner.largest_numbers(batch.micro_batches[0])
        self._readouts += 1
        return {
            "loss": loss,
            "image_loss": image_loss,
            "video_loss": video_loss,
            "learning_rate": self._runner.rate,
            "grad_norm": self._runner.grad_norm(),
            "grad_norm_max": self._runner.take_largest_grad_norm(),
            "loss_scale": self._runner.loss_scale(),
            "overflows": self._progress.overflows,
            "max_attention_logit": logit,
            "max_residual_activation": residual,
            "rank_skew_seconds": self._ranks.spread(computed),
            "gpu_memory_bytes": memory,
            "gpu_memory_reserved_bytes": reserved,
            "gpu_allocator_retries": retries,
            "image_micro_batch": self._runner.largest_size("image"),
            "clip_micro_batch": self._runner.largest_size("video"),
            "skipped_samples": len(self._progress.skipped_files) - self._skipped_before,
        }


def telemetry_options(
    run: ArlowPretrain,
    options: TrainOptions,
    ranks: Ranks,
    store: Store,
    events: EventLog | None,
    write_stacks: Callable[[], None] | None = None,
) -> TelemetryOptions:
    """Returns where a run's telemetry goes: to the port, the terminal and the run's URL.

    `events` is the run's event log, on rank 0 alone; `write_stacks` is what `/stacks` calls.
    """
    if events is None:
        return TelemetryOptions(log_format=options.log_format)
    precision = effective_precision(run.spec.training.precision, ranks.device)
    peak = peak_flops(ranks.device, precision)
    return TelemetryOptions(
        port=options.port,
        live=options.live,
        log_format=options.log_format,
        device=device_name(ranks.device),
        precision=precision,
        peak_flops=None if peak is None else peak * ranks.size,
        publish_status=lambda status: store.write_bytes(STATUS_FILE, status),
        append_history=StoredLines(store, HISTORY_FILE).append_json,
        record_event=events.record,
        write_stacks=write_stacks,
    )


def resumed_from(newest: CheckpointInfo, saved: TrainingState) -> ResumeReport:
    """Returns the report of the checkpoint that a run resumes from."""
    assert newest.created is not None  # A valid checkpoint has its manifest's time.
    return ResumeReport(
        LastCheckpoint(url=newest.url, step=newest.step, time=newest.created),
        saved.total_steps,
        saved.loss,
        saved.overflows,
    )


def warn_of_changes(
    telemetry: Telemetry,
    saved: TrainingState,
    run: ArlowPretrain,
    total_steps: int,
    fingerprints: Mapping[str, Mapping[str, str]],
) -> None:
    """Warns of the data and the settings that a resumed run does not find as it left them."""
    for line in (*changed_data(saved, fingerprints), *changed_settings(saved, run)):
        telemetry.warning(f"since {checkpoint_name(saved.step)}: {line}")
    before_run = stored_run(saved.run)
    before, now = (
        learning_rate(saved.step, steps, optimizer.warmup_steps, optimizer.learning_rate)
        for steps, optimizer in (
            (saved.total_steps, before_run.spec.training.optimizer),
            (total_steps, run.spec.training.optimizer),
        )
    )
    if before != now:
        telemetry.warning(
            f"since {checkpoint_name(saved.step)}: the learning rate of step {saved.step + 1:,} of "
            f"{total_steps:,}: {before:.4g} -> {now:.4g}"
        )


def on_saved(
    telemetry: Telemetry,
    store: Store,
    run: ArlowPretrain,
    probe: BackgroundProbe | None,
    reached: AttemptProgress | None,
) -> Callable[[SaveEvent, float], None]:
    """Returns what the checkpoint writer calls at the end of every save, on its own thread.

    Rank 0, which has `probe` and `reached`, records and reports the checkpoint, starts its probe
    and deletes the checkpoints that retention does not keep. A failure to delete is a warning: the
    checkpoint is saved.
    """
    checkpoint = run.spec.checkpoint

    def report(event: SaveEvent, stall_seconds: float) -> None:
        if probe is None or reached is None:
            return
        if event.error is not None:
            telemetry.checkpoint_failed(event.step, event.error)
            return
        reached.saved = event.step
        telemetry.checkpoint(
            CheckpointReport(event.step, event.url, event.duration_s, event.bytes, stall_seconds)
        )
        probe.start(event.step)
        try:
            pruned = prune(store, checkpoint.keep_last, checkpoint.keep_every, event.step)
        except ArlowError as error:
            telemetry.warning(f"superseded checkpoints are not deleted: {error}")
            return
        for step, problems in pruned.damaged.items():
            telemetry.warning(
                f"{store.url}/checkpoint-{step} does not read back as it was written: "
                f"{problems[0]}. The last intact checkpoint is kept; check the store"
            )

    return report


@contextmanager
def report_end(telemetry: Telemetry, first_reason: Callable[[], str]) -> Iterator[None]:
    """Reports how a run ended early, stopped or failed, before telemetry is closed.

    Of an error that only says that another rank has ended, `first_reason` knows why that did.
    """
    try:
        yield
    except Interrupted as error:
        telemetry.phase("stopped", str(error))
        raise
    except ArlowError as error:
        telemetry.phase("failed", str(error))
        raise
    except Exception as error:
        lost = lost_a_peer(error)
        telemetry.phase("failed", first_reason() if lost else f"{type(error).__name__}: {error}")
        raise
