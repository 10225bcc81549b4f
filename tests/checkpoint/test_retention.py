"""Which checkpoints may go: the rules, and their deletion in every kind of store."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arlow_trainer.checkpoint.layout import SaveMark
from arlow_trainer.checkpoint.reader import CheckpointInfo, list_checkpoints, newest_valid
from arlow_trainer.checkpoint.retention import (
    Pruned,
    Unfinished,
    delete_checkpoint,
    judge_unfinished,
    plan_leftovers,
    plan_retention,
    plan_unfinished,
    prune,
)
from arlow_trainer.checkpoint.writer import SaveEvent
from arlow_trainer.config.errors import StoreError
from arlow_trainer.storage.store import Store
from support.checkpoints import files_of, flip_byte, only_rank, save

NOW = datetime.now(UTC)
WEIGHTS = "vision_encoder/model.safetensors"

steps = st.lists(st.integers(0, 1000), max_size=30)
keep_last = st.integers(1, 10)
keep_every = st.none() | st.integers(1, 100)
verified = st.none() | st.integers(0, 1000)


@given(steps, keep_last, keep_every, verified)
def test_the_rules_hold(
    present: list[int], last: int, every: int | None, intact: int | None
) -> None:
    gone = plan_retention(present, last, every, intact)
    left = set(present) - set(gone)
    assert gone == sorted(set(gone))
    assert set(gone) <= set(present)
    assert left or not present
    assert set(sorted(set(present))[-last:]) <= left
    if every is not None:
        assert not [step for step in gone if step % every == 0]
    if intact in present:
        assert intact in left


@given(steps, keep_last, keep_every, verified)
def test_nothing_is_kept_without_a_rule(
    present: list[int], last: int, every: int | None, intact: int | None
) -> None:
    gone = plan_retention(present, last, every, intact)
    left = sorted(set(present) - set(gone))
    rest = [step for step in left[:-last] if every is None or step % every]
    assert len(rest) <= (intact is not None)


@given(steps, keep_last, keep_every, verified)
def test_a_second_pass_finds_nothing_more(
    present: list[int], last: int, every: int | None, intact: int | None
) -> None:
    left = set(present) - set(plan_retention(present, last, every, intact))
    assert plan_retention(left, last, every, intact) == []


@pytest.mark.parametrize(
    ("present", "last", "every", "intact", "gone"),
    [
        ([], 3, None, None, []),
        ([10], 1, None, None, []),
        ([10, 20, 30, 40], 2, None, None, [10, 20]),
        ([40, 10, 30, 20], 1, 20, None, [10, 30]),
        ([10, 20, 30], 1, None, 20, [10]),
        # Resumed from 20 because 40 is damaged: what is intact stays until something newer is.
        ([10, 20, 25, 40], 1, None, 25, [10, 20]),
        ([10, 20, 40], 1, None, 25, [10]),
        ([0, 5, 10], 1, 10, None, [5]),
    ],
)
def test_examples(
    present: list[int], last: int, every: int | None, intact: int | None, gone: list[int]
) -> None:
    assert plan_retention(present, last, every, intact) == gone


@pytest.mark.parametrize(("last", "every"), [(0, None), (-1, None), (1, 0)])
def test_senseless_rules_are_refused(last: int, every: int | None) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        plan_retention([1], last, every)


@given(steps, st.integers(0, 1000))
def test_leftovers_lie_below_what_was_committed(unfinished: list[int], committed: int) -> None:
    gone = plan_leftovers(unfinished, committed)
    assert gone == sorted(set(gone))
    assert set(gone) == {step for step in unfinished if step < committed}


def test_pruning_keeps_what_it_must(store: Store) -> None:
    save(store, 10, 20, 30, 40)
    leave(store, 35)
    leave(store, 45)
    flip_size = store.read_bytes(f"checkpoint-10/{WEIGHTS}") + b"x"
    store.write_bytes(f"checkpoint-10/{WEIGHTS}", flip_size)
    pruned = prune(store, keep_last=1, keep_every=20, committed=40)
    assert (pruned.deleted, pruned.damaged) == ([30, 35], {})
    left = {info.step: info.valid for info in list_checkpoints(store)}
    assert left == {10: False, 20: True, 40: True, 45: False}


class Rotting(Store):
    """A store that changes one byte of every file from some moment on, as a bad cache does."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        # Shared with the copies that a writer makes of its store.
        self.state = {"rotten": False}

    def put_file(self, local_path: Path, key: str, *, move: bool = False) -> None:
        if self.state["rotten"]:
            data = bytearray(local_path.read_bytes())
            data[0] ^= 1
            local_path.write_bytes(data)
        super().put_file(local_path, key, move=move)


@pytest.mark.parametrize("keep_last", [1, 3])
def test_the_last_good_checkpoint_outlives_saves_that_do_not_read_back(
    tmp_path: Path, keep_last: int
) -> None:
    store = Rotting(str(tmp_path))
    pruned: list[Pruned] = []

    def on_event(event: SaveEvent) -> None:
        pruned.append(prune(store, keep_last, None, event.step))

    with only_rank(store, on_event) as writer:
        for step in (10, 20, 30, 40, 50):
            store.state["rotten"] = step > 10
            writer.submit(step, files_of(step))
            writer.wait()
        newest = newest_valid(store)
        assert newest is not None
        assert newest.step == 10
        assert all(each.deleted == [] for each in pruned)
        assert set(pruned[-1].damaged) == {20, 30, 40, 50}
        [problem] = pruned[-1].damaged[50]
        assert problem.file == WEIGHTS

        store.state["rotten"] = False
        writer.submit(60, files_of(60))
        writer.wait()
    assert 10 in pruned[-1].deleted
    newest = newest_valid(store)
    assert newest is not None
    assert newest.step == 60


def test_where_nothing_reads_back_nothing_is_deleted(store: Store) -> None:
    save(store, 1, 2, 3)
    for step in (1, 2, 3):
        flip_byte(store, f"checkpoint-{step}/{WEIGHTS}")
    pruned = prune(store, keep_last=1, keep_every=None, committed=3)
    assert (pruned.deleted, set(pruned.damaged)) == ([], {1, 2, 3})


def leave(store: Store, step: int, marked: bool = True, of: int | None = None) -> None:
    """Leaves what a killed save does, or somebody else's files."""
    if marked:
        mark = SaveMark(step=step if of is None else of, attempt="a" * 32, started=NOW)
        store.write_bytes(f"checkpoint-{step}/save.json", mark.to_bytes())
    store.write_bytes(f"checkpoint-{step}/half", b"perhaps needed")


@pytest.mark.parametrize(
    ("unfinished", "newest", "plan"),
    [
        ({}, None, ([], [], [], [])),
        ({}, 10, ([], [], [], [])),
        ({15: True}, 10, ([15], [], [], [])),
        ({5: True}, None, ([5], [], [], [])),
        # A backup that is half restored: nothing was saved after it.
        ({5: False, 10: False}, None, ([], [], [], [5, 10])),
        ({5: False, 15: False}, 10, ([], [], [5], [15])),
        ({5: True, 7: False, 12: True}, 10, ([12], [5], [7], [])),
        ({15: True, 20: False}, 10, ([15], [], [], [20])),
    ],
)
def test_what_becomes_of_folders_without_a_manifest(
    unfinished: dict[int, bool], newest: int | None, plan: tuple[list[int], ...]
) -> None:
    assert plan_unfinished(unfinished, newest) == Unfinished(*plan)


@given(st.dictionaries(st.integers(0, 50), st.booleans()), st.none() | st.integers(0, 50))
def test_nothing_is_removed_without_proof(found: dict[int, bool], newest: int | None) -> None:
    plan = plan_unfinished(found, newest)
    assert sorted([*plan.removed, *plan.superseded, *plan.kept, *plan.refused]) == sorted(found)
    assert all(found[step] for step in (*plan.removed, *plan.superseded))
    assert not any(found[step] for step in plan.kept)
    assert all(newest is None or step > newest for step in plan.removed)
    assert all(newest is not None and step <= newest for step in plan.kept)


def test_a_killed_save_is_known_by_its_mark(store: Store) -> None:
    save(store, 1, 2)
    flip_byte(store, "checkpoint-2/manifest.json", 40)
    leave(store, 3)
    assert judge_unfinished(store, 1) == Unfinished([3], [], [], [])
    # Earlier versions wrote records of a save into this folder, and no mark.
    store.write_bytes("checkpoint-4/parts/rank-1.json", b"{}")
    leave(store, 5, of=3)
    leave(store, 6)
    store.write_bytes("checkpoint-6/save.json", b"{}")
    with pytest.raises(StoreError, match=r"checkpoint-4; checkpoint-5; checkpoint-6: no manifest"):
        judge_unfinished(store, 1)
    assert [info.step for info in list_checkpoints(store)] == [1, 2, 3, 4, 5, 6]


def test_pruning_leaves_what_it_does_not_know(store: Store) -> None:
    leave(store, 5, marked=False)
    leave(store, 6)
    save(store, 10, 20)
    assert prune(store, keep_last=2, keep_every=None, committed=20).deleted == [6]
    assert [info.step for info in list_checkpoints(store)] == [5, 10, 20]


def test_a_checkpoint_half_deleted_does_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
    save(store, 1, 2)

    def dies(prefix: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "delete_tree", dies)
    with pytest.raises(KeyboardInterrupt):
        delete_checkpoint(store, 1)
    infos: list[CheckpointInfo] = list_checkpoints(store)
    assert [(info.step, info.unfinished) for info in infos] == [(1, True), (2, False)]
    assert [info.marked for info in infos] == [True, False]
    monkeypatch.undo()
    assert prune(store, keep_last=1, keep_every=None, committed=2).deleted == [1]
    assert store.list_dirs() == ["checkpoint-2"]
