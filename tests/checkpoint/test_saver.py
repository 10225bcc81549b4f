"""Saving an engine's state: once a step, and again where it failed."""

from __future__ import annotations

from pathlib import Path

from arlow_trainer.checkpoint.reader import verify
from arlow_trainer.checkpoint.saver import CheckpointSaver
from arlow_trainer.checkpoint.training_state import Progress, TrainingState
from arlow_trainer.checkpoint.writer import SaveEvent
from arlow_trainer.engine import Ranks, build_autoencoder, initialize_engine
from arlow_trainer.storage.grace import Grace
from arlow_trainer.storage.store import Store
from support.checkpoints import new_attempt
from support.stored_run import tiny_run


def test_a_step_is_saved_once_and_again_where_it_failed(alone: Ranks, tmp_path: Path) -> None:
    run = tiny_run(str(tmp_path / "runs"))
    training, store = run.spec.training, Store(run.run_url)
    engine = initialize_engine(build_autoencoder(training), training, "fp32", alone.device)
    start = TrainingState.start(
        run, ranks=1, total_steps=40, set_sizes={"image": 4}, precision="fp32"
    )
    events: list[SaveEvent] = []
    in_the_way = Path(run.run_url) / "checkpoint-1"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("a file where a folder belongs")
    with CheckpointSaver(
        store,
        run,
        engine,
        alone,
        attempt=new_attempt(),
        start=start,
        grace=Grace(180),
        on_event=lambda event, stall: events.append(event),
    ) as saver:
        saver.save(Progress(1))
        saver.save(Progress(2))  # waits for the first, which fails
        in_the_way.unlink()
        saver.save(Progress(1))
        saver.save(Progress(1))
        saver.finish(None)
    assert [(event.step, event.error is None) for event in events] == [
        (1, False),
        (2, True),
        (1, True),
    ]
    assert verify(store, 1) == verify(store, 2) == []
