"""A rank that fails alone ends the run at once, and its reason is the one that is told.

The group of these ranks cannot be left, as NCCL's when a rank is missing; in half of the runs the
other rank waits for the one that failed and never hears of it, as ranks on GPUs do.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from training_runs import Media, Process, TrainingRun

HOOK = Path(__file__).with_name("failing_rank")
SECONDS = 20.0
"""The others have five, and the machine that runs the tests may be busy."""


@pytest.mark.parametrize("others", ["hear", "wait"])
@pytest.mark.parametrize(
    ("failure", "failing", "code", "words"),
    [
        ("raise", 1, 70, 'rank 1 failed: KeyError: "a defect of the test\'s own"'),
        ("raise", 0, 70, "rank 0 failed: KeyError"),
        ("kill", 1, 5, "rank 1 was killed by SIGKILL"),
        ("kill", 0, 5, "rank 0 was killed by SIGKILL"),
        ("exit", 1, 70, "ranks ended without a reason: rank 1 with 3"),
    ],
)
def test_one_rank_fails(
    media: Media,
    tmp_path: Path,
    failure: str,
    failing: int,
    code: int,
    words: str,
    others: str,
    record_property: pytest.RecordProperty,
) -> None:
    run = TrainingRun(tmp_path, media)
    failed_at, message = tmp_path / "failed-at", tmp_path / "message"
    environment = {
        "PYTHONPATH": f"{HOOK}:{os.environ.get('PYTHONPATH', '')}",
        "TEST_FAILURE": failure,
        "TEST_RANK": str(failing),
        "TEST_OTHERS": others,
        "TEST_FAILED_AT": str(failed_at),
        "ARLOW_TERMINATION_LOG": str(message),
    }
    process = Process(run.command(2), tmp_path / "log.txt", environment)
    try:
        ended = process.ended()
    finally:
        process.kill()
    seconds = time.time() - float(failed_at.read_text())
    record_property("seconds", round(seconds, 1))
    print(f"{failure} on rank {failing}, others {others}: {seconds:.1f} s")
    assert ended.code == code, ended.log
    assert seconds < SECONDS, ended.log
    assert words in ended.log
    ending = json.loads(message.read_text())
    assert (ending["exitCode"], ending["rank"]) == (code, failing)
    assert words in ending["message"]
    status = json.loads((run.url / "status.json").read_text())
    assert status["phase"] == "failed"
    assert words.removeprefix(f"rank {failing} failed: ") in status["message"]
    last = run.events()[-2:]
    assert [(event["kind"], event["phase"]) for event in last] == [
        ("phase", "failed"),
        ("end", "failed"),
    ]
    assert words.removeprefix(f"rank {failing} failed: ") in last[0]["message"]
    assert not (run.url / "lease.json").exists()
