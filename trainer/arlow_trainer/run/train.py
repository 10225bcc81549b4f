"""The story of a run, from the first rank to the last checkpoint, in numbered steps."""

from __future__ import annotations

import uuid
from contextlib import ExitStack

from arlow_trainer.checkpoint.retention import remove_unfinished
from arlow_trainer.checkpoint.saver import CheckpointSaver, read_state, restore
from arlow_trainer.checkpoint.training_state import check_same_run
from arlow_trainer.config import ArlowPretrain, advise, total_steps
from arlow_trainer.config.errors import Interrupted
from arlow_trainer.data import (
    StepLoader,
    workers_per_rank,
)
from arlow_trainer.engine import (
    FiniteGuard,
    Ranks,
    StepRunner,
    build_autoencoder,
    device_memory,
    effective_precision,
    explain_out_of_memory,
    initialize_engine,
)
from arlow_trainer.pictures.writer import PictureWriter
from arlow_trainer.plan.memory import largest_micro_batch
from arlow_trainer.probe import BackgroundProbe
from arlow_trainer.run.options import TrainOptions
from arlow_trainer.run.reporting import (
    StepReporter,
    on_saved,
    report_end,
    resumed_from,
    telemetry_options,
)
from arlow_trainer.run.signals import StopSignal
from arlow_trainer.run.startup import (
    acquire_run,
    check_same_sets,
    check_shares,
    fetch,
    find_newest,
    open_in_turn,
    stop_if_asked,
)
from arlow_trainer.storage.events import EventLog
from arlow_trainer.storage.store import Store
from arlow_trainer.telemetry import Telemetry


def train(run: ArlowPretrain, options: TrainOptions, stop: StopSignal) -> None:
    """Trains a run to its last step, from its newest checkpoint if its URL holds one.

    Runs on every rank, in a process group that the environment describes. Raises Interrupted when
    `stop` was raised on any rank and the checkpoint is saved, another ArlowError when it failed.
    """
    training, batch_size = run.spec.training, run.spec.global_batch_size
    with ExitStack() as stack:
        # 1. The ranks, and a store that is ours alone, before anything slow begins.
        ranks = Ranks()
        stack.callback(ranks.leave)
        ranks.agree(lambda: check_shares(ranks.size, batch_size))
        store = Store(run.run_url)
        lease = ranks.agree(lambda: acquire_run(store, run) if ranks.first else None)
        events = None
        if lease is not None:
            stack.callback(lease.release)
            events = stack.enter_context(EventLog(store))
        telemetry = Telemetry(
            run, ranks.rank, ranks.size, telemetry_options(run, options, ranks, store, events)
        )
        stack.callback(telemetry.close)
        stack.enter_context(report_end(telemetry))
        stack.enter_context(explain_out_of_memory())

        # 2. The newest valid checkpoint, where there is one.
        ranks.agree(lambda: remove_unfinished(store) if ranks.first else None)
        newest = ranks.from_first(lambda: find_newest(store, telemetry, stop))
        done = newest.step if newest else 0
        saved = ranks.agree(lambda: read_state(store, done)) if newest else None
        if newest and saved:
            telemetry.resumed(resumed_from(newest, saved))

        # 3. The data, opened before any GPU time is spent.
        telemetry.phase("loading", "opening the data")
        sources = ranks.agree(lambda: open_in_turn(training.data, ranks, stop)) or {}
        set_sizes: dict[str, int] = {modality: len(source) for modality, source in sources.items()}
        check_same_sets(ranks.gather(set_sizes))
        set_size = set_sizes["image" if "image" in sources else "video"]
        steps = total_steps(run, set_size)
        for warning in advise(run, set_size) if ranks.first else ():
            telemetry.warning(warning)

        if newest and saved:
            uri, state = newest.uri, saved
            ranks.agree(lambda: check_same_run(state, run, set_sizes, uri))
            if done >= steps:
                telemetry.phase("finished", f"all {steps:,} steps were done before")
                return

        # 4. The model under ZeRO-2, as it was then.
        stop_if_asked(ranks, stop)
        telemetry.phase("loading", "building the model")
        precision = effective_precision(training.precision, ranks.device)
        if ranks.first and precision != training.precision:
            telemetry.warning(
                f"spec.training.precision: {training.precision} needs a GPU and this machine has "
                f"none, so the run trains in {precision}"
            )
        # Before anything is allocated: a model that does not fit is told of in words.
        micro_batch = training.batch.micro_batch or largest_micro_batch(
            run, ranks.size, device_memory(ranks.device, ranks.size), precision
        )
        module = build_autoencoder(training)
        engine = initialize_engine(module, training, precision, ranks.device)
        runner = StepRunner(engine, training, batch_size, steps)
        guard = FiniteGuard(runner, ranks, telemetry.lost_step)

        reporter = StepReporter(run, telemetry, runner, guard, ranks, steps)
        if newest and saved:
            telemetry.phase("loading", f"resuming from {newest.uri}")
            restore(store, saved, engine, ranks)
            guard.overflows = saved.overflows
            reporter.resume(saved)

        stop_if_asked(ranks, stop)

        # 5. Steps, each on its own samples, with a checkpoint now and then.
        workers = training.data.workers
        loader = StepLoader(
            training.data,
            training.model,
            sources,
            training.seed,
            batch_size,
            ranks.rank,
            ranks.size,
            micro_batch,
            workers_per_rank(ranks.size) if workers is None else workers,
            start_step=done,
        )
        attempt = ranks.from_first(lambda: uuid.uuid4().hex)
        probe = None
        if ranks.first:
            probe = stack.enter_context(BackgroundProbe(run, telemetry.probe, telemetry.warning))
        saver = stack.enter_context(
            CheckpointSaver(
                store,
                run,
                engine,
                ranks,
                attempt,
                steps,
                set_sizes,
                precision,
                on_saved(telemetry, store, run, probe),
            )
        )
        pictures = None
        if ranks.first and training.pictures_every_steps is not None:
            pictures = stack.enter_context(PictureWriter(run, store, sources))

        def save() -> None:
            with runner.clock.phase("checkpoint"):
                saver.save(done, reporter.loss, guard.overflows, reporter.skipped)

        telemetry.phase("training", f"{steps - done:,} steps to go, micro-batch {micro_batch}")
        batches = iter(loader)
        # The decoding processes end here, not at the interpreter's exit, which would wait for them.
        stack.callback(batches.close)
        reporter.start()
        while done < steps:
            try:
                with runner.clock.phase("data"):
                    batch = ranks.agree(lambda: fetch(batches, lease, stop))
            except Interrupted:
                break
            if ranks.any(bool(batch.skipped))[0]:
                reporter.skip(batch.skipped)
            applied = runner.step(done, batch.micro_batches)
            guard.after_step(done, applied, batch.micro_batches)
            done += 1
            reporter.after_step(batch)
            if pictures is not None and pictures.due(done, steps):
                pictures.submit(engine.module, done)
            if done % run.spec.checkpoint.every_steps == 0 and done < steps:
                save()

        # 6. The last checkpoint: of a finished run, or of one that goes on another time.
        telemetry.phase("saving")
        if done > (newest.step if newest else 0):
            save()
        saver.wait()
        ranks.wait()
        if done < steps:
            raise Interrupted(
                f"stopped at step {done:,} of {steps:,} as asked; everything is saved in "
                f"{run.run_url}, and the same command goes on from there"
            )
        if probe is not None:
            probe.finish(stopped=lambda: stop.raised)
        telemetry.phase("finished", f"{steps:,} steps done")
