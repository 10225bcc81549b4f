"""A run in a real tracking store of MLflow: files, and its own server where there is one.

The server is in the package mlflow, whose requirements are not always to be had beside ours: the
variable MLFLOW_COMMAND names the `mlflow` of another environment.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tracked_records import PICTURE, Tracked, picture, probed, scalars

from arlow_trainer.storage.store import Store

pytest.importorskip("mlflow", reason="the package mlflow-skinny is not installed")

import mlflow

from arlow_trainer.trackers.mlflow_run import EXPERIMENT, MlflowRun
from support.ports import free_port

START_TIMEOUT_S = 240.0


@contextmanager
def running_server(program: str, folder: Path) -> Iterator[str]:
    """`mlflow server` over SQLite; yields its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [program, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "server.txt").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while not _answers(f"{url}/health"):
                assert server.poll() is None, (folder / "server.txt").read_text()
                assert time.monotonic() < deadline, (folder / "server.txt").read_text()
                time.sleep(0.2)
            yield url
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module", params=["files", "server"])
def tracking_store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    if request.param == "files":
        yield folder.as_uri()
        return
    program = os.environ.get("MLFLOW_COMMAND")
    if program is None:
        pytest.skip("no MLflow server: set MLFLOW_COMMAND to `mlflow` of an environment with it")
    with running_server(program, folder) as url:
        yield url


@pytest.fixture
def client(tracking_store: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_store)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return mlflow.MlflowClient()


@pytest.fixture
def found(client: Any) -> Callable[[str], Any]:
    """Returns the only MLflow run of an id of ours."""

    def find(run_id: str) -> Any:
        experiment = client.get_experiment_by_name(EXPERIMENT)
        (run,) = client.search_runs([experiment.experiment_id], f"tags.`arlow.run_id` = '{run_id}'")
        return run

    return find


def curve(client: Any, run: Any, name: str = "loss") -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]


def no_warning(text: str) -> None:
    raise AssertionError(text)


def test_scalars_pictures_and_settings_are_logged(
    client: Any, found: Callable[[str], Any], tracked: Tracked, folder: Store
) -> None:
    run = MlflowRun(tracked(id="first"), no_warning)
    run.write([*scalars([2, 4]), probed(2, 0.5), picture(4)])
    assert found("first").info.status == "RUNNING"
    run.end("finished")
    seen = found("first")
    assert (seen.info.run_name, seen.info.status) == ("small", "FINISHED")
    assert curve(client, seen) == [(2, 2.0), (4, 4.0)]
    assert curve(client, seen, "probe_accuracy/knn") == [(2, 0.5)]
    stamps = [m.timestamp for m in client.get_metric_history(seen.info.run_id, "loss")]
    assert stamps == [(10**9 + 2) * 1000, (10**9 + 4) * 1000]
    assert seen.data.params["optimizer.learningRate"] == "0.003"
    assert seen.data.params["optimizer.betas"] == "[0.9, 0.95]"
    assert seen.data.params["preset"] == "tiny"
    assert seen.data.tags["arlow.url"] == folder.url
    images = [file.path for file in client.list_artifacts(seen.info.run_id, "images")]
    assert len([path for path in images if path.endswith(".png")]) == 1
    assert all("reconstruction" in path and "4" in path for path in images)


def test_a_resumed_run_is_the_same_and_has_each_step_once(
    client: Any, found: Callable[[str], Any], tracked: Tracked
) -> None:
    first = MlflowRun(tracked(id="resumed"), no_warning)
    first.write([*scalars([2, 4, 6]), picture(4)])
    first.end("stopped")
    assert found("resumed").info.status == "KILLED"
    changed = {"preset": "tiny", "optimizer": {"learningRate": 0.1}, "seed": 7}
    again = MlflowRun(tracked(id="resumed", attempt=2, step=4, settings=changed), no_warning)
    assert found("resumed").info.status == "RUNNING"
    again.write([*scalars([6, 8], factor=10), picture(4), probed(4, 0.25)])
    again.end("failed")
    seen = found("resumed")
    assert curve(client, seen) == [(2, 2.0), (4, 4.0), (6, 6.0), (8, 80.0)]
    assert curve(client, seen, "probe_accuracy/knn") == [(4, 0.25)]
    assert seen.data.params["optimizer.learningRate"] == "0.003", "parameters never change"
    assert seen.data.params["seed"] == "7"
    assert seen.info.status == "FAILED"


def test_many_points_and_settings_go_in_several_requests(
    client: Any, found: Callable[[str], Any], tracked: Tracked
) -> None:
    settings = {f"setting{number}": number for number in range(150)} | {"long": "x" * 10_000}
    run = MlflowRun(tracked(id="many", settings=settings), no_warning)
    run.write(scalars(range(1, 1001)))
    assert len(curve(client, found("many"))) == 1000
    assert len(found("many").data.params) == 151


def test_a_picture_that_cannot_be_stored_is_a_warning(
    client: Any, found: Callable[[str], Any], tracked: Tracked
) -> None:
    warnings: list[str] = []
    broken = tracked(id="picture", read=lambda key: b"no PNG")
    run = MlflowRun(broken, warnings.append)
    run.write([picture(2), *scalars([4])])
    assert curve(client, found("picture")) == [(4, 4.0)]
    (warning,) = warnings
    assert warning.startswith(f"{PICTURE} is left out: ")


def test_mlflow_s_own_variables_name_the_experiment(
    client: Any, tracked: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "ours")
    MlflowRun(tracked(id="named"), no_warning)
    experiment = client.get_experiment_by_name("ours").experiment_id
    assert len(client.search_runs([experiment])) == 1
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    MlflowRun(tracked(id="by id"), no_warning)
    assert len(client.search_runs([experiment])) == 2
