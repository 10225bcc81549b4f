"""Checkpoints are probed during training, in a process that no step waits for."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from arlow_trainer.config import ArlowPretrain, ProbeSection, SourceSection, validate
from arlow_trainer.probe import BackgroundProbe
from arlow_trainer.probe.background import probe_command
from arlow_trainer.storage.store import Store
from support.class_folders import write_folders
from support.stored_run import save_checkpoint, tiny_run
from support.waiting import wait_until


class Reports:
    """What a probe reports, and on which threads."""

    def __init__(self) -> None:
        self.results: list[tuple[int, str, float]] = []
        self.warnings: list[str] = []
        self.threads: set[str] = set()

    def report(self, step: int, method: str, accuracy: float) -> None:
        self.results.append((step, method, accuracy))
        self.threads.add(threading.current_thread().name)


def probed_run(folder: Path, **probe: Any) -> ArlowPretrain:
    document = tiny_run(str(folder / "runs")).model_dump(by_alias=True, exclude={"status"})
    section = {"data": {"path": str(folder / "set")}} | probe
    document["spec"]["training"]["probe"] = section
    return validate(document, "the test's manifest")


def saved(run: ArlowPretrain, *steps: int) -> Store:
    store = Store(run.run_url)
    for step in steps:
        save_checkpoint(store, run, step)
    return store


def children() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if "probe" in p.cmdline()]


def test_due_checkpoints_are_probed_one_after_another(tmp_path: Path) -> None:
    write_folders(tmp_path / "set")
    run, reports = probed_run(tmp_path, everySteps=10), Reports()
    store = saved(run, 10, 15, 20)
    with BackgroundProbe(run, reports.report, reports.warnings.append) as probe:
        begun = time.monotonic()
        for step in (10, 15, 20):
            probe.start(step)
        assert time.monotonic() - begun < 1
        wait_until(children)
        [process] = children()
        wait_until(lambda: process.nice() == 19)
        environment = process.environ()
        assert environment["OMP_NUM_THREADS"] == "1"
        assert environment["CUDA_VISIBLE_DEVICES"] == ""
        assert len(children()) == 1
        probe.finish()
    assert reports.warnings == []
    assert reports.threads == {"probe"}
    lines = [json.loads(line) for line in store.read_bytes("probe.jsonl").splitlines()]
    assert [(line["step"], line["method"], line["accuracy"]) for line in lines] == reports.results
    steps = [step for step, _, _ in reports.results]
    # Step 15 was not due; step 10 may have given way to step 20 before it began.
    assert steps in ([10, 10, 20, 20], [20, 20])
    assert children() == []


def test_what_fails_is_a_warning(tmp_path: Path) -> None:
    run, reports = probed_run(tmp_path), Reports()
    saved(run, 10)
    with BackgroundProbe(run, reports.report, reports.warnings.append) as probe:
        probe.start(10)
        probe.finish()
    assert reports.results == []
    [warning] = reports.warnings
    assert warning.startswith("checkpoint of step 10 is not probed: ")
    assert "no such folder" in warning
    assert "Traceback" not in warning


def test_a_run_that_ends_does_not_wait(tmp_path: Path) -> None:
    write_folders(tmp_path / "set")
    run, reports = probed_run(tmp_path), Reports()
    saved(run, 10)
    probe = BackgroundProbe(run, reports.report, reports.warnings.append)
    probe.start(10)
    wait_until(children)
    begun = time.monotonic()
    probe.finish(timeout_s=0.1)
    probe.finish(stopped=lambda: True)
    probe.close()
    assert time.monotonic() - begun < 6
    assert children() == []
    assert reports.results == []
    assert f"`arlow probe {run.run_url} --data={tmp_path}/set" in reports.warnings[0]
    assert "--step=10` does it" in reports.warnings[0]
    probe.start(20)
    assert children() == []


def test_nothing_is_done_unless_asked(tmp_path: Path) -> None:
    run, reports = tiny_run(str(tmp_path / "runs")), Reports()
    with BackgroundProbe(run, reports.report, reports.warnings.append) as probe:
        probe.start(10)
        probe.finish()
        assert not any(thread.name == "probe" for thread in threading.enumerate())
    assert (reports.results, reports.warnings) == ([], [])


@pytest.mark.parametrize(
    ("section", "options"),
    [
        (
            ProbeSection(data=SourceSection(path="cifar")),
            ["--data=cifar", "--train-split=train", "--test-split=test", "--limit=2000"],
        ),
        (
            ProbeSection(
                data=SourceSection(path="./-x", name="v2", split="dev", column="img"),
                test_split="val",
                label="fine",
                limit=0,
            ),
            [
                *("--data=./-x", "--name=v2", "--train-split=dev", "--test-split=val"),
                *("--column=img", "--label=fine", "--limit=0"),
            ],
        ),
    ],
)
def test_the_command_says_what_the_section_says(section: ProbeSection, options: list[str]) -> None:
    found = probe_command("s3://bucket/run", 30, section)
    assert found == ["probe", "s3://bucket/run", *options, "--step=30"]
