"""What is reported when the hub refuses, by a server on loopback that answers as the hub does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

REVISION = "a" * 40
SCRIPT_SET = {
    "id": "ucf101",
    "sha": REVISION,
    "private": False,
    "gated": False,
    "siblings": [{"rfilename": "ucf101.py"}, {"rfilename": "README.md"}],
}
OPEN = """
import logging, sys
from arlow_trainer.config import DataSection, SourceSection
from arlow_trainer.config.errors import ArlowError
from arlow_trainer.data import open_source, open_sources
logging.basicConfig(stream=sys.stdout)
try:
    if sys.argv[1:]:
        open_source(SourceSection(path=sys.argv[1]), "video")
    else:
        open_sources(DataSection())
except ArlowError as error:
    print(type(error).__name__, error)
logging.getLogger("huggingface_hub.utils").warning("trying again")
"""


class Hub(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if "imagenet" in self.path:
            self.answer(403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "restricted"})
        elif self.path.startswith("/api/datasets/ucf101"):
            self.answer(200, {}, json.dumps(SCRIPT_SET).encode())
        elif self.path.endswith("ucf101.py"):
            self.answer(200, {"ETag": '"1"', "X-Repo-Commit": REVISION}, b"import datasets\n")
        elif "ucf101" in self.path:
            self.answer(404, {"X-Error-Code": "EntryNotFound"})
        else:
            self.answer(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "not found"})

    do_HEAD = do_GET

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("name", "kind", "parts"),
    [
        ("ILSVRC/imagenet-1k", "CredentialsError", ["is gated", "accept its terms", "HF_TOKEN"]),
        ("ucf101", "DataError", ["is a script", "arlow data prepare ucf101", "data.videos.path"]),
        ("nobody/nothing", "DataError", ["no such data set", "data.videos.path", "private"]),
    ],
)
def test_the_hubs_refusals(
    hub: str, tmp_path: Path, name: str, kind: str, parts: list[str]
) -> None:
    message = opened(hub, tmp_path, name).stdout
    assert message.startswith(kind)
    assert [part for part in parts if part not in message] == []


def test_mistakes_in_both_sets_of_the_default_run_are_reported_at_once(
    hub: str, tmp_path: Path
) -> None:
    images, videos, *_ = opened(hub, tmp_path).stdout.splitlines()
    assert images.startswith("CredentialsError ILSVRC/imagenet-1k is gated")
    assert videos.startswith("ucf101 is a script")


def test_the_libraries_warnings_reach_the_log_once(hub: str, tmp_path: Path) -> None:
    done = opened(hub, tmp_path, "nobody/nothing")
    assert (done.stdout + done.stderr).count("trying again") == 1


def opened(hub: str, tmp_path: Path, *names: str) -> subprocess.CompletedProcess[str]:
    """Runs a process that opens a set by name, or, without one, the sets of the default run."""
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path), "NO_PROXY": "*"}
    for variable in ("HF_HUB_OFFLINE", "HF_TOKEN"):
        environment.pop(variable, None)
    return subprocess.run(
        [sys.executable, "-c", OPEN, *names],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
