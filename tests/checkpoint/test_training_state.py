"""Which manifests continue a run, and which are refused."""

from __future__ import annotations

import json

import pytest

from arlow_trainer.checkpoint.training_state import (
    Progress,
    TrainingState,
    changed_data,
    changed_settings,
    check_same_run,
    with_saved_batch,
)
from arlow_trainer.config import ArlowPretrain, ConfigError, load_run
from arlow_trainer.config.errors import ArlowError, StoreError

SIZES = {"image": 25, "video": 2}


def saved_by(run: ArlowPretrain) -> TrainingState:
    return TrainingState(
        step=7,
        next_sample=7 * run.spec.global_batch_size,
        seed=0,
        ranks=2,
        total_steps=100,
        set_sizes=SIZES,
        precision="fp32",
        loss=None,
        loss_scaler={},
        overflows=0,
        skipped_files={},
        run=run.model_dump(mode="json", by_alias=True, exclude={"status"}),
    )


@pytest.mark.parametrize(
    "harmless",
    ["epochs=2", "optimizer.learningRate=0.5", "data.workers=3", "batch.microBatch=1"],
)
def test_what_changes_neither_tensors_nor_order_is_allowed(harmless: str) -> None:
    check_same_run(saved_by(load_run("tiny")), load_run("tiny", [harmless]), SIZES, "there")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("model.depth=7", "spec.training.model.depth"),
        ("mae.maskRatio=0.5", "spec.training.mae.maskRatio"),
        ("seed=1", "spec.training.seed"),
        ("data.videoProbability=0.5", "spec.training.data.videoProbability"),
        ("data.minCropScale=0.5", "spec.training.data.minCropScale"),
        ("batch.globalSize=64", "spec.training.batch.globalSize"),
    ],
)
def test_what_changes_them_is_refused_by_field(change: str, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_same_run(saved_by(load_run("tiny")), load_run("tiny", [change]), SIZES, "there")
    assert field in str(caught.value)
    assert "metadata.name" in str(caught.value)


def test_a_global_batch_of_0_is_that_of_the_first_attempt() -> None:
    first = load_run("tiny", ["batch.globalSize=0", "nodes={count: 2, gpus: 4}"])
    state = saved_by(first)
    now = load_run("tiny", ["batch.globalSize=0", "nodes={count: 3, gpus: 4}"])
    assert (first.spec.global_batch_size, now.spec.global_batch_size) == (256, 384)
    kept = with_saved_batch(now, state, "there")
    assert kept.spec.global_batch_size == 256
    assert kept.spec.nodes == now.spec.nodes
    check_same_run(state, kept, SIZES, "there")
    chosen = load_run("tiny", ["batch.globalSize=64"])
    assert with_saved_batch(chosen, state, "there") == chosen


def test_a_run_of_another_version_is_named() -> None:
    run = load_run("tiny")
    state = saved_by(run)
    state.run["spec"]["training"]["newField"] = 1
    with pytest.raises(StoreError, match=r"there: spec\.training\.newField: .*another version"):
        check_same_run(state, run, SIZES, "there")
    content = state.to_bytes().replace(b'"seed": 0', b'"seeds": 0', 1)
    with pytest.raises(StoreError, match=r"there: seed: .*another version"):
        TrainingState.from_bytes(content, "there")


def test_a_set_of_another_size_is_refused_with_both_numbers() -> None:
    run = load_run("tiny")
    with pytest.raises(ConfigError, match=r"images: 25 samples in there, 26 now"):
        check_same_run(saved_by(run), run, {"image": 26, "video": 2}, "there")


def test_progress_is_saved_and_restored_as_it_is() -> None:
    run = load_run("tiny")
    progress = Progress(7, 0.25, 2, {"a.jpg": "truncated"})
    start = TrainingState.start(
        run, ranks=2, total_steps=100, set_sizes={"image": 25}, precision="fp32"
    )
    state = TrainingState.from_bytes(start.after(progress, 16, {}).to_bytes(), "there")
    assert state.progress == progress
    assert state.next_sample == 7 * 16
    progress.skipped_files["b.jpg"] = "empty"
    assert state.progress.skipped_files == {"a.jpg": "truncated"}


def test_a_state_that_is_not_read_back_is_not_written() -> None:
    run = load_run("tiny")
    start = TrainingState.start(
        run, ranks=2, total_steps=100, set_sizes={"image": 25}, precision="fp32"
    )
    large = start.after(Progress(7, 1e101), 16, {})
    with pytest.raises(ArlowError, match=r"cannot be saved.*a number beyond 1e\+100"):
        large.to_bytes()
    with pytest.raises(ArlowError, match=r"cannot be saved.*of more than 64 bits"):
        TrainingState.start(
            run, ranks=2, total_steps=2**64, set_sizes={"image": 25}, precision="fp32"
        )


def test_every_field_that_may_differ_and_does_is_named() -> None:
    state = saved_by(load_run("tiny", ["optimizer.learningRate=0.5", "data.workers=3"]))
    assert changed_settings(state, load_run("tiny", ["optimizer.learningRate=0.5"])) == [
        "spec.training.data.workers: 3 -> null"
    ]
    now = load_run("tiny", ["maxStepsPerEpoch=6", "batch.microBatch=1", "data.workers=3"])
    assert sorted(changed_settings(state, now)) == [
        "spec.training.batch.microBatch: null -> 1",
        f"spec.training.maxStepsPerEpoch: {state.run['spec']['training']['maxStepsPerEpoch']} -> 6",
        "spec.training.optimizer.learningRate: 0.5 -> "
        f"{load_run('tiny').spec.training.optimizer.learning_rate}",
    ]


def test_a_set_that_changed_though_its_size_did_not_is_named() -> None:
    now = {"image": {"names": "a", "sizes": "b", "times": "c"}, "video": {"names": "d"}}
    state = saved_by(load_run("tiny"))
    assert changed_data(state, now) == []  # A checkpoint of an earlier version.
    state = state.model_copy(update={"fingerprints": now})
    assert changed_data(state, now) == []
    [line] = changed_data(state, now | {"image": {"names": "a", "sizes": "x", "times": "y"}})
    assert line.startswith("spec.training.data.images: the sizes and times of its files are not")
    # Nothing is known now: a store that did not answer is no change.
    assert changed_data(state, {"image": {}}) == []


def test_a_state_of_an_earlier_version_is_read() -> None:
    state = saved_by(load_run("tiny"))
    content = json.loads(state.to_bytes())
    assert content.pop("fingerprints") == {}
    content["run"]["spec"]["env"] = [{"name": "HF_TOKEN", "value": "SECRET"}]
    read = TrainingState.from_bytes(json.dumps(content).encode(), "there")
    assert read.model_copy(update={"run": state.run}) == state
    assert "SECRET" not in read.model_dump_json()
    check_same_run(read, load_run("tiny"), SIZES, "there")


def test_credentials_that_an_earlier_version_saved_are_not_read_back() -> None:
    run = load_run("tiny")
    state = saved_by(run)
    state.run["spec"]["training"]["data"]["images"]["path"] = "http://user:SECRET@host/x"
    state.skipped_files["http://host/a.jpg?sig=SECRET"] = "refused by http://user:SECRET@host"
    read = TrainingState.from_bytes(state.to_bytes(), "there")
    assert "SECRET" not in read.model_dump_json()
    check_same_run(read, run, SIZES, "there")
