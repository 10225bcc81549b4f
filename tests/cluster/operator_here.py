"""An operator on this machine, with its own rights in the cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kube import Cluster
from kubernetes.aio import client, config

from arlow_operator.api import Api


def write_kubeconfig(cluster: Cluster, path: Path, server: str = "") -> None:
    """Writes a kubeconfig of the operator's service account.

    Args:
        cluster: the cluster.
        path: the file.
        server: URL of the API server, or of a proxy before it; empty for the cluster's own.
    """
    found = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    token = cluster.kubectl("create", "token", "arlow-operator", "-n", "arlow-system").strip()
    found["users"] = [{"name": found["users"][0]["name"], "user": {"token": token}}]
    if server:
        found["clusters"][0]["cluster"] = {"server": server}
    path.write_text(json.dumps(found))


async def connected_api(kubeconfig: Path) -> Api:
    """Returns the operator's client of the cluster that a file names."""
    configuration = client.Configuration()
    await config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
    return Api(client.ApiClient(configuration))


class OperatorProcess:
    """An operator that is started again whenever it ends, as a kubelet does it.

    Attributes:
        starts: how often it was started.
    """

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.starts = 0
        self._environment, self._log = environment, log
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep)
        self._thread.start()

    def kill(self) -> None:
        """Kills the process that runs now."""
        if self._process:
            self._process.kill()

    def stop(self) -> None:
        """Ends it for good."""
        self._stopping.set()
        self.kill()
        self._thread.join()

    def _keep(self) -> None:
        command = [sys.executable, "-c", "from arlow_operator.main import main; main()"]
        while not self._stopping.is_set():
            self.starts += 1
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    command, env=self._environment, stdout=log, stderr=log
                )
            self._process.wait()
            self._stopping.wait(1)


@contextmanager
def running_operator(kubeconfig: Path, log: Path) -> Iterator[OperatorProcess]:
    """Runs an operator by a kubeconfig."""
    ours = {
        "KUBECONFIG": str(kubeconfig),
        "ARLOW_TRAINER_IMAGE": "localhost/missing:1",
        "ARLOW_PROGRESS_SECONDS": "1",
    }
    process = OperatorProcess(os.environ | ours, log)
    try:
        yield process
    finally:
        process.stop()
