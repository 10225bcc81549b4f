"""Runs on two ranks to a real S3 server: killed, continued, verified, damaged; and refused."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import s3fs
import yaml
from training_runs import EVERY, PLAIN, STEPS, Ended, Media, Process, TrainingRun, run_on_s3

from support.s3_server import S3

ARLOW = str(Path(sys.executable).with_name("arlow"))


@dataclass
class Stored:
    """A run whose URL is in a bucket."""

    run: TrainingRun
    server: S3
    folder: Path

    @property
    def url(self) -> str:
        return self.server.url("models/small")

    @property
    def files(self) -> s3fs.S3FileSystem:
        return s3fs.S3FileSystem(
            **self.server.options, use_listings_cache=False, skip_instance_cache=True
        )

    def manifests(self) -> list[str]:
        return sorted(self.files.glob(f"{self.url}/checkpoint-*/manifest.json"))

    def start(self, **environment: str) -> Process:
        return Process(
            self.run.command(2), self.folder / "s3.txt", self.server.environment | environment
        )

    def arlow(self, *words: str) -> Ended:
        done = subprocess.run(
            [ARLOW, *words],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | self.server.environment | {"COLUMNS": "200"},
        )
        return Ended(done.returncode, done.stdout + done.stderr)


@pytest.fixture(scope="module")
def stored(media: Media, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    folder = tmp_path_factory.mktemp("on-s3")
    with run_on_s3(folder, media) as (run, server):
        yield Stored(run, server, folder)


@pytest.fixture(scope="module")
def killed(stored: Stored) -> Ended:
    """Kills all at a random moment, an upload's more likely than not, and starts again."""
    first = stored.start()
    try:
        first.wait_for(lambda: len(stored.manifests()) >= 2)
        time.sleep(random.uniform(0, 1))
    finally:
        first.kill()
    again = stored.start()
    try:
        return again.ended()
    finally:
        again.kill()


def test_the_same_command_goes_on(stored: Stored, killed: Ended) -> None:
    assert killed.code == 0, killed.log
    assert f"resuming from {stored.url}/checkpoint-" in killed.log
    assert len(stored.manifests()) == STEPS // EVERY


def test_it_ends_as_a_run_that_was_never_cut(
    stored: Stored, killed: Ended, media: Media, tmp_path: Path
) -> None:
    whole = TrainingRun(tmp_path, media)
    ended = whole.train(2)
    assert ended.code == 0, ended.log
    for part in ("vision_encoder", "decoder"):
        path = f"checkpoint-{STEPS}/{part}/model.safetensors"
        assert stored.files.cat_file(f"{stored.url}/{path}") == (whole.url / path).read_bytes()


def test_logs_go_where_the_checkpoints_go(stored: Stored, tmp_path: Path) -> None:
    """Only the manifest says where the store is: its keys must not go to anybody else."""
    manifest = yaml.safe_load(stored.run.file.read_text())
    manifest["metadata"]["name"] = "by-endpoint"
    manifest["spec"]["checkpoint"]["options"] = {"endpoint": stored.server.endpoint}
    manifest["spec"]["training"]["maxStepsPerEpoch"] = 2
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(manifest))
    environment = {
        # Where a client without the endpoint would go: it refuses at once.
        **(stored.server.environment | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}),
        "ARLOW_ATTEMPT": "3",
        "ARLOW_ALLOW_CPU": "1",
    }
    command = [ARLOW, "train", str(file), "--ranks", "1", *PLAIN]
    process = Process(command, tmp_path / "log.txt", environment)
    try:
        ended = process.ended()
    finally:
        process.kill()
    assert ended.code == 0, ended.log
    assert "cannot be written" not in ended.log
    logs = stored.files.ls(f"{stored.server.url('models/by-endpoint')}/logs/3", detail=False)
    assert [name.rpartition("/")[2] for name in sorted(logs)] == ["attempt.json", "rank-0.log"]


def test_ls_and_verify_before_and_after_a_flipped_byte(stored: Stored, killed: Ended) -> None:
    listed = stored.arlow("checkpoints", "ls", stored.url)
    assert listed.code == 0, listed.log
    assert all(str(step) in listed.log for step in range(EVERY, STEPS + 1, EVERY))
    verified = stored.arlow("checkpoints", "verify", stored.url)
    assert verified.code == 0, verified.log
    path = f"{stored.url}/checkpoint-{2 * EVERY}/vision_encoder/model.safetensors"
    data = bytearray(stored.files.cat_file(path))
    data[len(data) // 2] ^= 1
    stored.files.pipe_file(path, bytes(data))
    damaged = stored.arlow("checkpoints", "verify", stored.url)
    assert damaged.code == 74, damaged.log
    assert "vision_encoder/model.safetensors" in damaged.log
    assert "Traceback" not in damaged.log


def test_wrong_credentials(stored: Stored) -> None:
    process = stored.start(AWS_SECRET_ACCESS_KEY="wrong")
    try:
        ended = process.ended()
    finally:
        process.kill()
    assert ended.code == 77, ended.log
    assert stored.url in ended.log
    assert "Traceback" not in ended.log


def test_a_full_disk(media: Media, tmp_path: Path) -> None:
    """The disk of the checkpoints fills up; the decoding and the logs are on another."""
    disk = tmp_path / "disk"
    disk.mkdir()
    run = TrainingRun(tmp_path / "run", media)
    command = [*run.command(2, f"checkpoint.url={disk}/runs")]
    mount = f"mount -t tmpfs -o size=3m tmpfs {disk}"
    alone = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c"]
    if subprocess.run([*alone, mount], check=False, capture_output=True).returncode:
        pytest.skip("no mounts here: run it as root to see the disk full")
    process = Process([*alone, f'{mount} && exec "$@"', "arlow", *command], tmp_path / "full.txt")
    try:
        ended = process.ended()
    finally:
        process.kill()
    assert ended.code == 74, ended.log
    assert "No space left on device" in ended.log
    assert "Traceback" not in ended.log
