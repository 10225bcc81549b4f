"""A real cluster: the operator runs in it with its own roles, and a real S3 server beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cluster_runs import TinyRuns, put_images
from kube import Cluster, Kit, address_towards

from support.s3_server import S3, S3Unavailable, running_s3

COMMIT = subprocess.run(
    ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
).stdout.strip()


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster that KUBECONFIG names, with the operator in it."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip(
            "no cluster: set KUBECONFIG and run `make test-cluster` (docs/operator.md, Tests)"
        )
    if not shutil.which("helm"):
        pytest.skip("no helm on the PATH, which installs the chart: .ci/install-helm FOLDER")
    found = Cluster()
    found.install()
    return found


@pytest.fixture(scope="session")
def kit() -> Kit:
    """What kills containers and loses nodes of a test cluster."""
    folder = os.environ.get("ARLOW_CLUSTER_KIT")
    if not folder:
        pytest.skip("no kit of a test cluster: set ARLOW_CLUSTER_KIT (docs/operator.md, Tests)")
    return Kit(Path(folder))


@pytest.fixture(scope="session")
def cluster_s3(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A real S3 server on this machine, which pods reach."""
    try:
        with running_s3(
            tmp_path_factory.mktemp("s3"), address=address_towards(cluster.node_address())
        ) as server:
            yield server
    except S3Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def images(cluster_s3: S3, tmp_path_factory: pytest.TempPathFactory) -> str:
    """URL of a folder of pictures on that server."""
    url = cluster_s3.url("images")
    put_images(cluster_s3, url, tmp_path_factory.mktemp("images"))
    return url


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A new namespace that enforces Pod Security `restricted`."""
    name = f"arlow-{uuid.uuid4().hex[:8]}"
    cluster.create_namespace(name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def runs(cluster: Cluster, cluster_s3: S3, namespace: str, images: str) -> TinyRuns:
    """Runs of a namespace of their own, with the Secret of their store."""
    found = TinyRuns(cluster, namespace, cluster_s3, images)
    found.create_secret()
    return found


@pytest.fixture
def no_operator(cluster: Cluster) -> Iterator[None]:
    """No operator in the cluster, so that a test runs its own."""
    cluster.scale_operator(0)
    yield
    cluster.scale_operator(1)


@pytest.fixture(autouse=True)
def load(record_property: Callable[[str, object], None]) -> None:
    """Notes the machine's load before a test, for the page of `make soak-cluster`."""
    record_property("load", round(os.getloadavg()[1]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Writes the page of `make soak-cluster` where ARLOW_SOAK_PAGE names its file.

    Tests that were not run keep their rows.
    """
    name = os.environ.get("ARLOW_SOAK_PAGE")
    if not name or not os.environ.get("KUBECONFIG"):
        return
    page = Path(name)
    lines = page.read_text("utf-8").splitlines() if page.exists() else []
    rows = {line.split("|")[1].strip(): line for line in lines if line.startswith("| `")}
    for outcome in ("passed", "failed", "skipped"):
        for report in terminalreporter.getreports(outcome):
            if report.when == "call" or outcome == "skipped":
                test = f"`{report.nodeid.rpartition('::')[2]}`"
                rows[test] = (
                    f"| {test} | {outcome} | {report.duration:.0f} | {COMMIT} | "
                    f"{datetime.now(UTC):%Y-%m-%d} | "
                    f"{dict(report.user_properties).get('load', '-')} | "
                    f"{' '.join(report.capstdout.split())} |"
                )
    head = (
        "# Outages and faults in a cluster\n\n"
        "`make soak-cluster` writes this page; each row is of the last run of its test, on "
        f"{os.cpu_count()} cores.\n\n"
        "| test | result | seconds | commit | on | load before | what was seen |\n"
        "| :--- | :--- | ---: | :--- | :--- | ---: | :--- |\n"
    )
    page.write_text(head + "\n".join(rows.values()) + "\n", "utf-8")
