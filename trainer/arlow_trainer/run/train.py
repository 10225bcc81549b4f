"""Trains a run, from the first rank to the last checkpoint, in numbered steps."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import torch

from arlow_trainer.checkpoint.initial import load_initial
from arlow_trainer.checkpoint.saver import CheckpointSaver, read_state, restore
from arlow_trainer.checkpoint.training_state import (
    Progress,
    TrainingState,
    check_same_run,
    with_saved_batch,
)
from arlow_trainer.checkpoint.writer import OutOfTime
from arlow_trainer.config import ArlowPretrain, Precision, advise, total_steps
from arlow_trainer.config.errors import ArlowError, CredentialsError, Interrupted, StoreError
from arlow_trainer.data import StepBatch, StepLoader
from arlow_trainer.engine import (
    FiniteGuard,
    Ranks,
    StepRunner,
    build_autoencoder,
    build_empty_autoencoder,
    device_memory,
    device_name,
    effective_precision,
    explain_device_failures,
    explain_out_of_memory,
    initialize_engine,
)
from arlow_trainer.engine.compilation import Blocks
from arlow_trainer.engine.graphs import common_graphs
from arlow_trainer.pictures.writer import PictureWriter
from arlow_trainer.plan.choice import MicroBatchChoice, choose_micro_batch
from arlow_trainer.plan.cores import share_cores
from arlow_trainer.plan.hardware import hardware_of_device
from arlow_trainer.plan.micro_batches import micro_batch_sizes
from arlow_trainer.probe import BackgroundProbe
from arlow_trainer.run.attempt import Attempt
from arlow_trainer.run.attempt_logs import reserve_attempt
from arlow_trainer.run.checkpoint_times import CheckpointTimes
from arlow_trainer.run.cores import threads_asked, usable_cores
from arlow_trainer.run.devices import check_batch_covers_ranks
from arlow_trainer.run.early_check import EarlyCheck
from arlow_trainer.run.lease import RELEASE_TIMEOUT_S, Lease
from arlow_trainer.run.options import TrainOptions
from arlow_trainer.run.reasons import first_reason, reason_first
from arlow_trainer.run.reporting import (
    StepReporter,
    on_saved,
    report_end,
    resumed_from,
    telemetry_options,
    warn_of_changes,
)
from arlow_trainer.run.signals import StopSignal
from arlow_trainer.run.start_times import StartTimes
from arlow_trainer.run.startup import (
    acquire_run,
    check_same_sets,
    compile_ahead,
    find_newest,
    fingerprints_of,
    open_data,
    remove_killed_saves,
    stop_if_asked,
    wait_for_blocks,
)
from arlow_trainer.run.tracking import end_trackers, start_trackers
from arlow_trainer.storage.events import EventLog
from arlow_trainer.storage.options import store_for, store_of
from arlow_trainer.storage.outbox import CLOSE_TIMEOUT_S
from arlow_trainer.storage.stacks import start_worker
from arlow_trainer.telemetry import Telemetry


def train(
    run: ArlowPretrain,
    options: TrainOptions,
    stop: StopSignal,
    attempt: Attempt,
    early: EarlyCheck | None,
) -> None:
    """Trains a run to its last step, from its newest checkpoint if its URL holds one.

    Runs on every rank, in a process group that the environment describes. Raises Interrupted when
    `stop` was raised on any rank and the checkpoint is saved, another ArlowError when it failed.
    `attempt` records how far it came, whatever ends it; `early` has read the newest checkpoint.
    """
    start_times = StartTimes(attempt.began)
    start_times.end("imports")
    training, batch_size = run.spec.training, run.spec.global_batch_size
    with (
        ExitStack() as stack,
        reason_first(attempt, int(os.environ["RANK"])),
        explain_device_failures(),
        explain_out_of_memory("the run"),
    ):
        # 1. The ranks, and a run URL that no other run writes to, before anything slow begins.
        ranks = Ranks()
        stack.push(lambda kind, *_: ranks.leave(failed=kind is not None))
        cores = share_cores(
            usable_cores(),
            ranks.here,
            gpu=ranks.device.type == "cuda",
            workers=training.data.workers,
            most_threads=threads_asked(os.environ.get("OMP_NUM_THREADS")),
        )
        torch.set_num_threads(cores.threads)
        reached = attempt.progress() if ranks.first else None
        store = store_of(run)
        # While nothing is to be saved, a stop does not wait for a store that does not answer.
        loading = store.stoppable(stop.grace.within)
        lease = ranks.agree(
            lambda: acquire_run(loading, run, options.adopt, stop) if ranks.first else None
        )
        events = None
        if lease is not None:
            stack.callback(closing(stop, lease.release, RELEASE_TIMEOUT_S))
            stack.callback(attempt.close_reports)
            events = EventLog(store)
            stack.callback(closing(stop, events.close, CLOSE_TIMEOUT_S))
        write_stacks = partial(os.kill, attempt.launcher, options.stack_number)
        outputs = telemetry_options(run, options, ranks, store, events, write_stacks)
        telemetry = Telemetry(run, ranks.rank, ranks.size, outputs)
        stack.callback(lambda: telemetry.close(stop.grace.within))
        stack.enter_context(report_end(telemetry, lambda: first_reason(attempt)))

        number = ranks.from_first(
            stop.obeyed()(lambda: reserve_attempt(loading, os.environ, stop.check))
        )
        if ranks.first_here:
            attempt.keep_logs_as(number)

        # 2. The newest valid checkpoint, if there is one.
        newest = ranks.from_first(lambda: find_newest(loading, telemetry, stop, early))
        saved = None
        if newest:
            step = newest.step
            saved = ranks.agree(stop.interruptible()(lambda: read_state(loading, step)))
        if newest and saved:
            telemetry.resumed(resumed_from(newest, saved))
            run = with_saved_batch(run, saved, newest.url)
            training, batch_size = run.spec.training, run.spec.global_batch_size
            ranks.agree(lambda: check_batch_covers_ranks(ranks.size, batch_size))
            if reached is not None:
                reached.step = reached.saved = saved.step

        telemetry.starting(start_times.end("checkpoint"))

        # 3. The micro-batches, for which blocks are compiled while the rest goes on, and the data.
        precision = effective_precision(training.precision, ranks.device)
        if ranks.first and precision != training.precision:
            telemetry.warning(
                f"spec.training.precision: {training.precision} needs a GPU and this machine has "
                f"none, so the run trains in {precision}"
            )
        # Before anything is allocated, so that a model that does not fit is a message.
        choice = ranks.agree(lambda: choose_for_device(run, ranks, precision))
        # A device that others use has less memory: one size for all, so that none waits.
        micro_batch = min(ranks.gather(choice.images))
        sizes = micro_batch_sizes(training, batch_size, ranks.size, micro_batch)
        ahead = stack.enter_context(compile_ahead(training, precision, sizes, ranks, attempt.logs))
        telemetry.phase("loading", "opening the data")
        sources = ranks.agree(lambda: open_data(training.data, ranks, stop)) or {}
        set_sizes: dict[str, int] = {modality: len(source) for modality, source in sources.items()}
        check_same_sets(ranks.gather(set_sizes))
        fingerprints = ranks.from_first(lambda: fingerprints_of(sources, stop))
        set_size = set_sizes["image" if "image" in sources else "video"]
        steps = total_steps(run, set_size)
        for warning in advise(run, set_size) if ranks.first else ():
            telemetry.warning(warning)
        if newest and saved:
            url, state = newest.url, saved
            ranks.agree(lambda: check_same_run(state, run, set_sizes, url))
            if saved.step >= steps:
                telemetry.phase("finished", f"all {steps:,} steps were done before")
                return
            if ranks.first:
                warn_of_changes(telemetry, saved, run, steps, fingerprints)
        # Not before: a start with a wrong setting must leave everything as it is.
        ranks.from_first(lambda: remove_killed_saves(loading, newest, telemetry, stop))

        # 4. The decoding processes, and the model under ZeRO-2 with the checkpoint's state.
        stop_if_asked(ranks, stop)
        telemetry.phase("loading", "building the model")
        progress = saved.progress if saved else Progress()
        # The decoding processes import and decode while the model is built and restored.
        loader = StepLoader(
            training,
            sources,
            global_batch_size=batch_size,
            rank=ranks.rank,
            ranks=ranks.size,
            micro_batch=micro_batch,
            workers=cores.workers,
            start_step=progress.step,
            on_worker=partial(start_worker, attempt.logs, ranks.rank, options.stack_number),
        )
        batches = iter(loader)
        # The decoding processes end here, not at the interpreter's exit, which would wait for them.
        stack.callback(batches.close)
        telemetry.starting(start_times.end("data"))
        # After the decoding processes, which must not inherit their threads.
        trackers = None
        if ranks.first:
            trackers = start_trackers(run, store, number, progress.step, telemetry.warning)
            stack.push(lambda kind, *_: end_trackers(trackers, kind, stop.grace))
            telemetry.track(trackers.scalars)
        # A checkpoint's weights replace all others, so that none are drawn for a resume.
        build = partial(build_autoencoder, training, ranks.device)
        if saved:
            build = partial(build_empty_autoencoder, training, ranks.device)
        module = ranks.agree(stop.interruptible()(build))
        if training.init and not saved:
            origin = store_for(run, training.init).stoppable(stop.grace.within)
            taken = ranks.agree(stop.interruptible()(lambda: load_initial(module, origin)))
            telemetry.phase("loading", f"starting from {taken}")
        engine = initialize_engine(module, training, precision, ranks.device)
        telemetry.starting(start_times.end("model"))
        if newest and saved:
            telemetry.phase("loading", f"resuming from {newest.url}")
            restore(loading, saved, engine, ranks, reading=stop.interruptible)
            telemetry.starting(start_times.end("restore"))
        start = TrainingState.start(
            run,
            ranks=ranks.size,
            total_steps=steps,
            set_sizes=set_sizes,
            precision=precision,
            fingerprints=fingerprints,
        )
        stop_if_asked(ranks, stop)

        # 5. The parts of the loop: the step, its guard, checkpoints, reports.
        runner = StepRunner(
            engine,
            training,
            batch_size,
            steps,
            sizes,
            ranks,
            on_warning=telemetry.warning if ranks.first else None,
            graphs=common_graphs(ranks.gather(choice.graphs.by_modality)),
        )
        guard = FiniteGuard(
            runner, ranks, telemetry.lost_step, telemetry.warning if ranks.first else None
        )
        samples = sum(set_sizes.values())
        reporter = StepReporter(run, telemetry, runner, ranks, progress, steps, samples)
        attempt_id = ranks.from_first(lambda: uuid.uuid4().hex)
        probe = pictures = None
        if ranks.first:
            probe = stack.enter_context(BackgroundProbe(run, telemetry.probe, telemetry.warning))
            if trackers is not None and training.pictures_every_steps:
                pictures = PictureWriter(run, store, sources, trackers.picture)
                stack.callback(closing(stop, pictures.close, CLOSE_TIMEOUT_S))
        saver = stack.enter_context(
            CheckpointSaver(
                store,
                run,
                engine,
                ranks,
                attempt=attempt_id,
                start=start,
                on_event=on_saved(telemetry, store, run, probe, reached),
                grace=stop.grace,
            )
        )

        telemetry.phase(
            "loading",
            f"rank {ranks.rank} takes {cores.threads + cores.workers} cores, {cores.workers} of "
            f"them to decode, and {saver.copy_bytes / 1e9:,.1f} GB to copy its state for saves",
        )

        if wait_for_blocks(ahead, telemetry, ranks, stop):
            telemetry.starting(start_times.end("compile"))

        # 6. Steps, each on its own samples, with a checkpoint every `everySteps`.
        telemetry.phase(
            "training",
            f"from step {progress.step:,} to {steps:,}, micro-batch {micro_batch} ({choice.reason})"
            + kernels_text(runner)
            + blocks_text(runner.blocks),
        )
        reporter.start()
        if ranks.first:
            attempt.begin_steps()
        if reached is not None:
            reached.step = progress.step
        stop.grace.loading = False
        times = CheckpointTimes(run.spec.checkpoint)
        while progress.step < steps:
            try:
                with runner.clock.phase("data"):
                    batch = ranks.agree(lambda: next_batch(batches, lease, stop))
            except Interrupted:
                break
            skipped, minutes_passed = ranks.any(
                bool(batch.skipped), ranks.first and times.minutes_passed()
            )
            if skipped:
                reporter.skip(batch.skipped)
            applied = runner.step(progress.step, batch.micro_batches)
            guard.after_step(progress.step, applied, batch.micro_batches)
            progress.step += 1
            progress.overflows += not applied
            reporter.after_step(batch)
            if "first_step" not in start_times.seconds:
                telemetry.starting(start_times.end("first_step"), done=True)
            if reached is not None:
                reached.step = progress.step
            if pictures is not None and pictures.due(progress.step, steps):
                pictures.submit(engine.module, progress.step)
            if times.due(progress.step, minutes_passed) and progress.step < steps:
                try:
                    with runner.clock.phase("checkpoint"):
                        saver.save(progress)
                except OutOfTime:
                    break

        # 7. The last checkpoint: of a finished run, or of one that was asked to stop.
        telemetry.phase("saving")
        unsaved = progress.step > (saved.step if saved else 0)
        failure = save_last(saver, progress if unsaved else None, ranks, stop)
        ranks.wait()
        if failure is not None:
            raise Interrupted(
                f"stopped at step {progress.step:,} of {steps:,} as asked, without its checkpoint: "
                f"{failure}. The same command resumes from the checkpoint before it"
            )
        if progress.step < steps:
            raise Interrupted(stopped_text(progress.step, steps, run.run_url))
        if probe is not None:
            probe.finish(stopped=lambda: stop.raised)
        telemetry.phase("finished", f"{steps:,} steps done")


def stopped_text(step: int, steps: int, url: str) -> str:
    """Returns what a run says that was asked to stop after `step` steps and has saved them all."""
    stopped = f"stopped at step {step:,} of {steps:,} as asked"
    if step == 0:
        return f"{stopped}: there is nothing to save yet, and the same command starts the run"
    return f"{stopped}; everything is saved in {url}, and the same command resumes there"


def choose_for_device(run: ArlowPretrain, ranks: Ranks, precision: Precision) -> MicroBatchChoice:
    """Returns the micro-batch that fits this rank's device; raises DeviceMemoryError."""
    device = ranks.device
    hardware = hardware_of_device(device_name(device)) if device.type == "cuda" else None
    memory = device_memory(device, ranks.size)
    return choose_micro_batch(run, ranks.size, memory, hardware, precision)


def kernels_text(runner: StepRunner) -> str:
    """Returns which kernels attention takes on a GPU, as the rest of a sentence."""
    if runner.engine.device.type != "cuda":
        return ""
    return (
        f", attention by {runner.kernels['image']} for images, {runner.kernels['video']} for clips"
    )


def blocks_text(blocks: Blocks) -> str:
    """Returns whether the blocks are compiled, as the rest of a sentence."""
    if blocks.plain_because is None:
        return ", blocks compiled"
    return f", blocks not compiled: {blocks.plain_because}"


def next_batch(batches: Iterator[StepBatch], lease: Lease | None, stop: StopSignal) -> StepBatch:
    """Returns the next step's samples, if this run still holds its lease.

    Raises LeaseError when it does not, and Interrupted when asked to stop: samples may take long.
    """
    if lease is not None and lease.loss is not None:
        raise lease.loss
    with stop.interruptible():
        return next(batches)


def save_last(
    saver: CheckpointSaver, progress: Progress | None, ranks: Ranks, stop: StopSignal
) -> ArlowError | None:
    """Saves the run's last state, unless that is None; returns when all is committed.

    Returns what prevented it in a run that was asked to stop, and raises it in another.
    """
    try:
        saver.finish(progress)
    except (StoreError, CredentialsError) as error:
        if not ranks.any(stop.raised)[0]:
            raise
        return error
    return None


def closing(stop: StopSignal, close: Callable[[float], None], limit_s: float) -> Callable[[], None]:
    """Returns what calls `close` with the seconds it may take, less than `limit_s` in a stop."""
    return lambda: close(stop.grace.within(limit_s))
