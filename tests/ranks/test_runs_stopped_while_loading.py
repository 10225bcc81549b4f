"""A stop before the first step: obeyed in seconds, whatever the store does, and nothing is left."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import s3fs
from training_runs import Ended, Media, Process, TrainingRun, run_on_s3

from arlow_trainer.checkpoint.layout import SaveMark
from support.holding_proxy import holding_proxy
from support.s3_server import S3

RUN = "models/small"
# Five waits of two seconds each: an answer, the lease, events, status, logs.
SOON_S = 12.0
REPORTS = re.compile(r"logs/|pictures/|status\.json|events\.jsonl|history\.jsonl")


@dataclass
class Stored:
    """A run in a bucket that has a checkpoint of its step 5."""

    run: TrainingRun
    server: S3
    folder: Path

    def start(self, endpoint: str, ranks: int = 1, steps: int = 40) -> Process:
        command = self.run.command(ranks, f"maxStepsPerEpoch={steps}")
        environment = self.server.environment | {
            "AWS_ENDPOINT_URL": endpoint,
            "ARLOW_TERMINATION_LOG": str(self.folder / "message.json"),
        }
        return Process(command, self.folder / "log.txt", environment)

    def files(self) -> s3fs.S3FileSystem:
        return s3fs.S3FileSystem(
            **self.server.options, use_listings_cache=False, skip_instance_cache=True
        )

    def content(self) -> dict[str, int]:
        """What is in the run's URL beside its reports: names and sizes."""
        root = f"{self.server.bucket}/{RUN}/"
        found = self.files().find(root, detail=True)
        names = {name.removeprefix(root): info["size"] for name, info in found.items()}
        return {name: size for name, size in names.items() if not REPORTS.match(name)}


@pytest.fixture(scope="module")
def stored(media: Media, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    folder = tmp_path_factory.mktemp("stored")
    with run_on_s3(folder, media) as (run, server):
        found = Stored(run, server, folder)
        process = found.start(server.endpoint, steps=5)
        ended = process.ended()
        assert ended.code == 0, ended.log
        yield found


class Store:
    """Between a run and its server: answers no more from a certain request on."""

    def __init__(self, request: str, silent: bool) -> None:
        self._request, self._silent = re.compile(request), silent
        self.process: Process | None = None
        self.after = ""
        self._requests: list[str] = []
        self.met, self._over = threading.Event(), threading.Event()

    def before(self, data: bytes) -> None:
        """Holds a piece of what the run sends, where it is the request, for ever."""
        line = data.split(b"\r\n")[0].decode(errors="replace")
        before = [self.process.log if self.process else "", *self._requests]
        self._requests.append(line)
        asked = self._request.match(line) and any(self.after in each for each in before)
        if asked:
            self.met.set()
        if asked or (self._silent and self.met.is_set()):
            self._over.wait()
            raise ConnectionResetError

    def end(self) -> None:
        self._over.set()


def stop_at(
    stored: Stored, request: str, after: str = "", silent: bool = False, ranks: int = 1
) -> Ended:
    """Stops a run in a request that gets no answer: the first `after` a text in its log."""
    store = Store(request, silent)
    store.after = after
    with holding_proxy(stored.server.endpoint, store.before) as endpoint:
        process = stored.start(endpoint, ranks)
        store.process = process
        try:
            process.wait_for(store.met.is_set)
            time.sleep(0.5)
            began = time.monotonic()
            process.popen.send_signal(signal.SIGTERM)
            ended = process.ended()
            seconds = time.monotonic() - began
        finally:
            process.kill()
            store.end()
    assert ended.code == 75, ended.log
    assert seconds < SOON_S, ended.log
    assert "Traceback" not in ended.log
    message = json.loads((stored.folder / "message.json").read_text())
    assert message["cause"] == "interrupted"
    assert "while loading" in message["message"]
    return ended


@pytest.mark.parametrize(
    ("request_line", "after", "ranks"),
    [
        (f"PUT /runs/{RUN}/probe-", "", 1),
        (f"GET /runs/{RUN}/lease.json", "", 2),
        (f"PUT /runs/{RUN}/lease.json[? ]", "", 1),
        (f"GET /runs/{RUN}/run.json", "", 1),
        (f"PUT /runs/{RUN}/logs/[0-9]+/attempt.json[? ]", "", 1),
        (f"(GET|HEAD) /runs/{RUN}/checkpoint-5/", f"PUT /runs/{RUN}/logs/", 1),
        (f"(GET|HEAD) /runs/{RUN}/checkpoint-5/", "resuming from", 2),
    ],
    ids=["writable", "lease", "lease-taken", "owner", "attempt", "check", "restore"],
)
def test_a_request_that_is_not_answered(
    stored: Stored, request_line: str, after: str, ranks: int
) -> None:
    before = stored.content()
    stop_at(stored, request_line, after, ranks=ranks)
    assert stored.content() == before


@pytest.mark.parametrize(
    ("request_line", "after"),
    [
        (f"PUT /runs/{RUN}/probe-", ""),
        (f"PUT /runs/{RUN}/logs/[0-9]+/attempt.json[? ]", ""),
        (f"(GET|HEAD) /runs/{RUN}/checkpoint-5/", "resuming from"),
    ],
    ids=["writable", "attempt", "restore"],
)
def test_a_store_that_answers_nothing_more(stored: Stored, request_line: str, after: str) -> None:
    before = stored.content()
    stop_at(stored, request_line, after, silent=True)
    # Nothing could be taken back.
    left = stored.content().keys() - before.keys()
    assert left <= {"lease.json"}


def test_what_a_killed_save_left_is_deleted_by_the_next_start(stored: Stored) -> None:
    before = stored.content().keys() - {"lease.json"}
    folder = f"{stored.server.bucket}/{RUN}/checkpoint-7"
    mark = SaveMark(step=7, attempt="0" * 32, started="2026-01-01T00:00:00Z")
    stored.files().pipe_file(f"{folder}/save.json", mark.to_bytes())
    for part in range(20):
        stored.files().pipe_file(f"{folder}/part-{part}", b"part")
    stop_at(stored, f"DELETE /runs/{RUN}/checkpoint-7/part-1")
    assert "checkpoint-7/save.json" in stored.content(), "it is marked to its end"
    ended = stored.start(stored.server.endpoint, steps=6).ended()
    assert ended.code == 0, ended.log
    assert "checkpoint-7 is deleted" in ended.log
    new = ("checkpoint-6/", "tensorboard/")
    left = {name for name in stored.content() if not name.startswith(new)}
    assert left == {name for name in before if not name.startswith(new)}
