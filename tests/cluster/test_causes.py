"""How containers end for real, and the cause that is told."""

from __future__ import annotations

from cluster_runs import TinyRuns, trains
from kube import Cluster, Kit, in_phase

# Its child is killed for its memory, and it ends well all the same.
CHILD_OUT_OF_MEMORY = """\
#!/usr/bin/env python3
import subprocess, sys
subprocess.run([sys.executable, "-c", "bytearray(2**30)"])
"""


def test_a_killed_container_goes_on_from_the_checkpoint(runs: TinyRuns, kit: Kit) -> None:
    first = runs.start()
    [pod] = runs.pods()
    kit.run("kill", pod["metadata"]["name"], runs.namespace)
    step = first["lastCheckpoint"]["step"]
    second = runs.wait("run", trains(2, step))
    # It could say nothing, and the kubelet says Error.
    assert second["restarts"]["byCause"] == {"unknown": 1}
    assert second["restarts"]["last"][0]["exitCode"] == 137
    assert second["restarts"]["last"][0]["node"] == pod["spec"]["nodeName"]


def test_pods_and_children_of_theirs_that_run_out_of_memory_say_so(
    cluster: Cluster, runs: TinyRuns
) -> None:
    once = {"maxRestarts": {"outOfMemory": 0}}
    small = {"memory": "128Mi"}
    cluster.apply(runs.manifest("pod", nodes=small, failurePolicy=once))
    runs.start_program("child", CHILD_OUT_OF_MEMORY, nodes=small, failurePolicy=once)
    for name in ("pod", "child"):
        status = runs.wait(name, in_phase("Failed"))
        assert "ended once for the cause outOfMemory" in status["message"]
        assert "raise spec.nodes.memory" in status["message"]
