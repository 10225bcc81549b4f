"""Runs whose credentials end, several times, on a real S3 server that issues keys of seconds.

Real: the server (SeaweedFS), its temporary keys and their end, the run. Made here: who writes new
keys to their file (in a cluster the kubelet or a side process), and the service that exchanges a
web identity token for keys.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import s3fs
import yaml
from training_runs import EVERY, Ended, Media, Process, TrainingRun

from support.holding_proxy import holding_proxy
from support.s3_server import S3, S3Unavailable, running_s3, write_keys
from support.sts_exchange import sts_exchange

SESSION_S = 20
ARLOW = str(Path(sys.executable).with_name("arlow"))


@dataclass
class Session:
    """A long run that has nothing but keys that end; its data are in the bucket, too."""

    run: TrainingRun
    server: S3
    folder: Path
    name: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> Path:
        return self.folder / "credentials"

    @property
    def url(self) -> str:
        return self.server.url(f"{self.name}/small")

    @property
    def files(self) -> s3fs.S3FileSystem:
        """The bucket, with keys that last."""
        return s3fs.S3FileSystem(
            **self.server.options, use_listings_cache=False, skip_instance_cache=True
        )

    def saved(self) -> list[int]:
        found = self.files.glob(f"{self.url}/checkpoint-*/manifest.json")
        return sorted(int(path.split("/")[-2].removeprefix("checkpoint-")) for path in found)

    def start(self, ranks: int, *overrides: str) -> Process:
        environment = {
            "HOME": str(self.folder),
            "AWS_ENDPOINT_URL": self.server.endpoint,
            "AWS_SHARED_CREDENTIALS_FILE": str(self.keys),
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "ARLOW_TERMINATION_LOG": str(self.folder / "message.json"),
        }
        command = self.run.command(ranks, "maxStepsPerEpoch=100000", *overrides)
        return Process(command, self.folder / "run.txt", environment | self.environment)

    def ending(self) -> dict[str, Any]:
        return json.loads((self.folder / "message.json").read_text())

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.files.cat_file(f"{self.url}/{name}").splitlines()]

    def verify(self) -> Ended:
        done = subprocess.run(
            [ARLOW, "checkpoints", "verify", self.url],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | self.server.environment,
        )
        return Ended(done.returncode, done.stdout + done.stderr)

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """New keys in the file every second."""
        ends = threading.Event()

        def renew() -> None:
            while not ends.wait(1.0):
                write_keys(self.keys, self.server.session_keys())

        write_keys(self.keys, self.server.session_keys())
        renewing = threading.Thread(target=renew)
        renewing.start()
        try:
            yield
        finally:
            ends.set()
            renewing.join()


@pytest.fixture(scope="module")
def sts(tmp_path_factory: pytest.TempPathFactory, media: Media) -> Iterator[S3]:
    """A server whose temporary keys end after seconds; photographs are in its bucket."""
    try:
        with running_s3(tmp_path_factory.mktemp("sts"), session_s=SESSION_S) as server:
            files = s3fs.S3FileSystem(**server.options, skip_instance_cache=True)
            for path in media.images.iterdir():
                files.pipe_file(f"{server.bucket}/images/{path.name}", path.read_bytes())
            yield server
    except S3Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def session(sts: S3, media: Media, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    run = TrainingRun(tmp_path, media)
    session = Session(run, sts, tmp_path, tmp_path.name)
    manifest = yaml.safe_load(run.file.read_text())
    manifest["spec"]["checkpoint"] |= {"url": sts.url(session.name), "keepLast": 1000}
    manifest["spec"]["training"]["data"] |= {"images": {"path": sts.url("images")}, "workers": 1}
    run.file.write_text(yaml.safe_dump(manifest))
    return session


def stopped_after(process: Process, seconds: float) -> Ended:
    """Lets a run train for so long after its first checkpoint, then stops it."""
    end = time.monotonic() + seconds
    process.wait_for(lambda: time.monotonic() > end)
    process.popen.send_signal(signal.SIGTERM)
    return process.ended()


def assert_nothing_is_lost(session: Session, ended: Ended) -> None:
    """Every checkpoint up to the last step is there, and every line of history."""
    assert ended.code == 75, ended.log
    assert "everything is saved" in ended.log
    assert "is not saved" not in ended.log
    ending, saved = session.ending(), session.saved()
    assert ending["saved"] == ending["step"] == saved[-1]
    assert saved[:-1] == list(range(EVERY, saved[-1], EVERY))
    steps = [line["step"] for line in session.lines("history.jsonl")]
    assert steps == list(range(2, steps[-1] + 1, 2))
    assert steps[-1] >= saved[-1] - 1
    committed = [e["step"] for e in session.lines("events.jsonl") if e["kind"] == "checkpoint"]
    assert committed == saved
    assert session.verify().code == 0


def test_keys_that_are_renewed_in_their_file_cost_nothing(session: Session) -> None:
    with session.renewed():
        process = session.start(2)
        try:
            process.wait_for(lambda: bool(session.saved()))
            ended = stopped_after(process, 2.5 * SESSION_S)
        finally:
            process.kill()
    assert_nothing_is_lost(session, ended)


def test_a_rotated_web_identity_token_costs_nothing(session: Session) -> None:
    token = session.folder / "token"
    token.write_text("token-1")
    with sts_exchange(session.server, SESSION_S, valid="token-1") as exchange:
        session.environment = exchange.environment(str(token))
        process = session.start(1)
        try:
            process.wait_for(lambda: bool(session.saved()))
            token.write_text("token-2")
            exchange.valid = "token-2"
            ended = stopped_after(process, 1.5 * SESSION_S)
        finally:
            process.kill()
    assert {"token-1", "token-2"} <= set(exchange.seen)
    assert_nothing_is_lost(session, ended)


def test_keys_that_end_in_mid_upload_cost_nothing(session: Session) -> None:
    """A part of a multipart upload is held back until its keys have ended."""
    held, end_of_keys, uploads = threading.Event(), threading.Event(), []

    def before(data: bytes) -> None:
        request = data.partition(b"\r\n")[0].decode(errors="replace")
        if begun := re.match(r"POST (\S*/checkpoint-10/\S*)\?uploads", request):
            uploads.append(begun[1])
        if re.match(r"PUT \S*/checkpoint-10/\S*partNumber=2&", request) and not held.is_set():
            held.set()
            assert end_of_keys.wait(120)

    # The optimiser's file is large enough for two parts.
    tower = ("model.embedDim=224", "checkpoint.everySteps=10")
    with session.renewed(), holding_proxy(session.server.endpoint, before) as endpoint:
        session.environment = {"AWS_ENDPOINT_URL": endpoint}
        process = session.start(1, *tower)
        try:
            process.wait_for(held.is_set)
            time.sleep(SESSION_S + 2)
            end_of_keys.set()
            process.wait_for(lambda: 10 in session.saved())
            process.popen.send_signal(signal.SIGTERM)
            ended = process.ended()
        finally:
            end_of_keys.set()
            process.kill()
    assert ended.code == 75, ended.log
    assert "is not saved" not in ended.log
    assert max(uploads.count(each) for each in uploads) >= 2, "one was begun anew"
    assert session.saved()[0] == 10
    assert session.ending()["saved"] == session.saved()[-1]
    verified = session.verify()
    assert verified.code == 0, verified.log


def test_keys_that_nobody_renews_end_the_run_and_keep_its_checkpoints(session: Session) -> None:
    with session.renewed():
        process = session.start(2)
        try:
            process.wait_for(lambda: bool(session.saved()))
        except BaseException:
            process.kill()
            raise
    try:
        ended = process.ended()
    finally:
        process.kill()
    assert ended.code == 77, ended.log
    assert "Traceback" not in ended.log
    ending, saved = session.ending(), session.saved()
    assert (ending["exitCode"], ending["cause"]) == (77, "credentials")
    assert "session credentials expired" in ending["message"]
    assert ending["saved"] == saved[-1] < ending["step"]
    assert saved == list(range(EVERY, saved[-1] + 1, EVERY))
    verified = session.verify()
    assert verified.code == 0, verified.log

    # The same command goes on where it stood.
    with session.renewed():
        again = session.start(1)
        try:
            again.wait_for(lambda: session.saved()[-1] > saved[-1])
            assert f"resuming from {session.url}/checkpoint-{saved[-1]}" in again.log
        finally:
            again.kill()
