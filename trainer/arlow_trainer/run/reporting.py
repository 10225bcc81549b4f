"""From the training loop's facts to telemetry's reports, and from telemetry to the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import torch

from arlow_trainer.checkpoint.reader import CheckpointInfo
from arlow_trainer.checkpoint.retention import prune
from arlow_trainer.checkpoint.training_state import TrainingState
from arlow_trainer.checkpoint.writer import SaveEvent
from arlow_trainer.config import ArlowPretrain
from arlow_trainer.config.errors import ArlowError, Interrupted
from arlow_trainer.config.status import LastCheckpoint
from arlow_trainer.data import Skipped, StepBatch, modality_at
from arlow_trainer.data.loader import too_many_broken
from arlow_trainer.engine import (
    FiniteGuard,
    Ranks,
    StepRunner,
    device_name,
    effective_precision,
    peak_flops,
)
from arlow_trainer.plan.flops import clip_training_flops, image_training_flops
from arlow_trainer.plan.tokens import tokens_per_clip, tokens_per_image
from arlow_trainer.probe import BackgroundProbe
from arlow_trainer.run.options import TrainOptions
from arlow_trainer.storage.events import EventLog
from arlow_trainer.storage.jsonl import StoredLines
from arlow_trainer.storage.store import Store
from arlow_trainer.telemetry import (
    HISTORY_FILE,
    STATUS_FILE,
    CheckpointReport,
    Readout,
    Resumed,
    StepReport,
    Telemetry,
    TelemetryOptions,
)

# It costs a forward pass of one sample, which is a percent of a rank's step where that is small.
_READOUTS_A_LOGIT = 10


def telemetry_options(
    run: ArlowPretrain, options: TrainOptions, ranks: Ranks, store: Store, events: EventLog | None
) -> TelemetryOptions:
    """Returns where a run's telemetry goes: the port, the terminal and the run's URL.

    `events` is the run's event log, on rank 0 alone.
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
    )


def resumed_from(newest: CheckpointInfo, saved: TrainingState) -> Resumed:
    """Returns what to tell of the checkpoint that a run goes on from."""
    assert newest.created is not None  # it is valid, so its manifest says so
    return Resumed(
        LastCheckpoint(uri=newest.uri, step=newest.step, time=newest.created),
        saved.total_steps,
        saved.loss,
        saved.overflows,
    )


def on_saved(
    telemetry: Telemetry, store: Store, run: ArlowPretrain, probe: BackgroundProbe | None
) -> Callable[[SaveEvent, float], None]:
    """Returns what the checkpoint writer calls at every save's end, on its own thread.

    Rank 0, which has `probe`, tells of it, has it probed and deletes what retention lets go. A
    failure to delete is a warning: the checkpoint is saved all the same.
    """
    checkpoint = run.spec.checkpoint

    def tell(event: SaveEvent, stall_seconds: float) -> None:
        if probe is None:
            return
        if event.error is not None:
            telemetry.checkpoint_failed(event.step, event.error)
            return
        telemetry.checkpoint(
            CheckpointReport(event.step, event.uri, event.duration_s, event.bytes, stall_seconds)
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

    return tell


@contextmanager
def report_end(telemetry: Telemetry) -> Iterator[None]:
    """Tells of a failure before the status is closed."""
    try:
        yield
    except Interrupted as error:
        telemetry.phase("stopped", str(error))
        raise
    except ArlowError as error:
        telemetry.phase("failed", str(error))
        raise
    except Exception as error:
        # What gloo says where another rank was killed; the launcher tells which, and how.
        lost = isinstance(error, RuntimeError) and "by peer" in str(error)
        words = "another rank ended" if lost else f"{type(error).__name__}: {error}"
        telemetry.phase("failed", words)
        raise


class StepReporter:
    """Tells telemetry of every step, and reads the device out at the logging interval."""

    def __init__(
        self,
        run: ArlowPretrain,
        telemetry: Telemetry,
        runner: StepRunner,
        guard: FiniteGuard,
        ranks: Ranks,
        total_steps: int,
    ) -> None:
        self._run, self._telemetry = run, telemetry
        self._runner, self._guard, self._ranks = runner, guard, ranks
        self._total_steps = total_steps
        training = run.spec.training
        self._image_tokens = tokens_per_image(training).total
        self._clip_tokens = tokens_per_clip(training).total
        self._image_flops = image_training_flops(training)
        self._clip_flops = clip_training_flops(training)
        self._broken: dict[str, str] = {}
        self._broken_before = 0
        self._last = 0.0
        self._readouts = 0
        self.loss: float | None = None

    def resume(self, saved: TrainingState) -> None:
        """Goes on from a checkpoint: with its loss, and with the broken files it counts already."""
        self.loss = saved.loss
        self._broken = dict(saved.skipped_files)
        self._broken_before = len(self._broken)

    def start(self) -> None:
        """Starts the clock of the first step."""
        self._last = time.perf_counter()

    def skip(self, skipped: Sequence[Skipped]) -> None:
        """Counts and names the broken files that any rank met; call on every rank.

        Raises DataError on every rank when there are more than `data.maxSkipped` since the run's
        first step, over all its resumes.
        """
        for file in chain.from_iterable(self._ranks.gather(skipped)):
            if file.name not in self._broken:
                self._broken[file.name] = file.reason
                if self._ranks.first:
                    self._telemetry.skipped(file.name, file.reason)
        allowed = self._run.spec.training.data.max_skipped
        if len(self._broken) > allowed:
            raise too_many_broken(self._broken, allowed)

    def after_step(self, batch: StepBatch) -> None:
        """Reports the step that a batch was; call on every rank, after every step."""
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

    @property
    def skipped(self) -> dict[str, str]:
        """The broken files that all ranks have skipped since the run's first step, with reasons."""
        return dict(self._broken)

    def _count(self, step: int) -> tuple[int, int]:
        training, size = self._run.spec.training, self._run.spec.global_batch_size
        first = step * size
        clips = sum(
            modality_at(training.seed, index, training.data.video_probability) == "video"
            for index in range(first, first + size)
        )
        return size - clips, clips

    def _read_out(self, batch: StepBatch, computed: float) -> Readout:
        device = self._ranks.device
        self.loss, image_loss, video_loss = self._runner.take_losses().means()
        memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        logit = None
        if self._ranks.first and self._readouts % _READOUTS_A_LOGIT == 0:
            logit = self._runner.max_attention_logit(batch.micro_batches[0])
        self._readouts += 1
        return Readout(
            loss=self.loss,
            image_loss=image_loss,
            video_loss=video_loss,
            learning_rate=self._runner.rate,
            grad_norm=self._runner.grad_norm(),
            grad_norm_max=self._runner.take_largest_grad_norm(),
            loss_scale=self._runner.loss_scale(),
            overflows=self._guard.overflows,
            max_attention_logit=logit,
            rank_skew_seconds=self._ranks.spread(computed),
            gpu_memory_bytes=memory,
            skipped_samples=len(self._broken) - self._broken_before,
        )
