"""`arlow fleet` against a server that answers as the Kubernetes API does."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.fleet_objects import condition, fleet_object, fleet_objects, training
from support.kubernetes_api import KubernetesApi, running_api, write_kubeconfig

ARLOW = [sys.executable, "-c", "from arlow_trainer.cli import main; main()", "fleet"]
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
Command = Callable[..., subprocess.CompletedProcess[str]]
Terminal = tuple["subprocess.Popen[bytes]", Callable[[str], None]]


def environment(kubeconfig: Path) -> dict[str, str]:
    size = {"COLUMNS": "170", "LINES": "40"}
    return {**os.environ, "KUBECONFIG": str(kubeconfig), "TERM": "xterm", **size}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[KubernetesApi, Command]]:
    """The server, and the command that asks it."""
    with running_api(fleet_objects()) as (api, url):
        variables = environment(write_kubeconfig(tmp_path / "kubeconfig", url))

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [*ARLOW, *arguments]
            return subprocess.run(
                command, capture_output=True, text=True, env=variables, timeout=60
            )

        yield api, run


@contextmanager
def at_a_terminal(kubeconfig: Path) -> Iterator[Terminal]:
    """Runs the command at a terminal; yields it, and what waits for words on its screen."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ARLOW, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(kubeconfig)
    )
    os.close(theirs)

    def wait_for(words: str) -> None:
        seen, deadline = b"", time.monotonic() + 60
        while words not in (text := ESCAPES.sub("", seen.decode(errors="replace"))):
            assert time.monotonic() < deadline, text
            if select.select([ours], [], [], 1)[0]:
                seen += os.read(ours, 65536)

    try:
        yield process, wait_for
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_without_a_terminal_the_runs_are_printed_once(
    cluster: tuple[KubernetesApi, Command],
) -> None:
    api, run = cluster
    done = run("-A")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split()[:3] == ["NAMESPACE", "NAME", "PHASE"]
    assert [line.split()[1] for line in lines[1:6]] == [
        "broken",
        "done",
        "stalled",
        "vision-3072",
        "waits",
    ]
    assert "\x1b" not in done.stdout
    assert any(line.startswith("research/broken: BudgetSpent: ended 6 times") for line in lines)
    assert api.asked == ["/apis/arlow.dev/v1alpha1/arlowpretrains"]


def test_one_namespace_is_that_of_the_context_or_of_the_option(
    cluster: tuple[KubernetesApi, Command],
) -> None:
    _, run = cluster
    assert "3 runs in the namespace team:" in run("--once").stdout
    assert "2 runs in the namespace research:" in run("-n", "research").stdout
    assert run("-n", "nowhere").stdout == "no runs in the namespace nowhere\n"
    both = run("-n", "team", "-A")
    assert (both.returncode, "-n and -A exclude each other" in both.stderr) == (2, True)


@pytest.mark.parametrize(
    ("code", "message", "words"),
    [
        (
            404,
            "404 page not found",
            "the cluster has no ArlowPretrain objects (arlow.dev/",
        ),
        (403, "arlowpretrains.arlow.dev is forbidden", "is forbidden; name a namespace of yours"),
        (401, "Unauthorized", "refuses the credentials of kubectl's context: Unauthorized"),
        (500, "etcd is away", "the cluster answers 500: etcd is away"),
    ],
)
def test_a_refusal_says_what_to_do(
    cluster: tuple[KubernetesApi, Command], code: int, message: str, words: str
) -> None:
    api, run = cluster
    api.refusal = (code, message)
    done = run("-A")
    assert done.returncode == 78
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_terminal_shows_what_happens_over_the_end_of_a_watch(tmp_path: Path) -> None:
    failed = fleet_object(
        "later", phase="Failed", conditions=[condition("Failed", "BudgetSpent", "it crashed")]
    )
    with running_api([fleet_object("first", **training())]) as (api, url):
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", url)
        with at_a_terminal(kubeconfig) as (process, wait_for):
            wait_for("1 run in the namespace team: 1 Running")
            api.tell("BOOKMARK", {"metadata": {"resourceVersion": "10"}})
            api.tell("ADDED", failed)
            wait_for("later: BudgetSpent: it crashed")
            api.tell("DELETED", failed)
            wait_for("1 run in the namespace team: 1 Running")
            # What comes between two watches is in the next list.
            api.objects.append(fleet_object("between", phase="Queued", message="no GPUs"))
            api.end_watch()
            wait_for("between: Queued: no GPUs")
            # The cluster is away, and comes back.
            api.refusal = (503, "no leader")
            api.end_watch()
            wait_for("the cluster answers 503: no leader")
            api.refusal = None
            api.objects.clear()
            wait_for("no runs in the namespace team")
            process.send_signal(signal.SIGINT)
            assert process.wait(120) == 0
        api.end_watch()


def test_who_may_not_watch_sees_each_list(tmp_path: Path) -> None:
    with running_api([fleet_object("first", **training())]) as (api, url):
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", url)
        api.watched = False
        with at_a_terminal(kubeconfig) as (_, wait_for):
            wait_for("first")
            api.objects.append(fleet_object("second", phase="Queued", message="no GPUs"))
            wait_for("second: Queued: no GPUs")


def test_a_configuration_that_is_missing_is_told(tmp_path: Path) -> None:
    variables = environment(tmp_path / "none")
    done = subprocess.run(ARLOW, capture_output=True, text=True, env=variables, timeout=60)
    assert done.returncode == 78
    assert "kubectl's configuration" in done.stderr
    assert "set KUBECONFIG" in done.stderr
