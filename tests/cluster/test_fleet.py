"""`arlow fleet`: the runs of a namespace in one table, with the reason of what is not well."""

from __future__ import annotations

import re

from cluster_runs import TinyRuns, told, trains
from kube import Cluster, arlow, condition, in_phase

# They answer and end as trainers do, and need neither data nor a store.
HANGS = """\
#!/usr/bin/env python3
import http.server

STATUS = b'{"run": "hangs", "phase": "training", "step": 7, "totalSteps": 90, "loss": 0.5}'

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(STATUS)

http.server.ThreadingHTTPServer(("", 9100), Answer).serve_forever()
"""
BREAKS = """\
#!/usr/bin/env python3
raise SystemExit(9)
"""


def row(table: str, name: str) -> str:
    """Returns the line of a run in the table."""
    [found] = re.findall(rf"^{name} .*", table, re.MULTILINE)
    return " ".join(str(found).split())


def reason(table: str, name: str) -> str:
    """Returns what is said of a run below the table."""
    [found] = re.findall(rf"^(?:\S+/)?{name}: (.*)", table, re.MULTILINE)
    return str(found)


def test_a_fleet_shows_what_trains_waits_stalls_and_has_failed(
    cluster: Cluster, runs: TinyRuns
) -> None:
    cluster.apply(runs.manifest("trains"), runs.manifest("waits", nodes={"gpus": 64}))
    report = {"stall": {"action": "Report", "minSeconds": 10}}
    runs.start_program("hangs", HANGS, failurePolicy=report)
    runs.start_program("breaks", BREAKS, failurePolicy={"maxRestarts": {"unknown": 0}})
    runs.wait("trains", trains(1))
    runs.wait("waits", told("no node takes the pod"))
    runs.wait("breaks", in_phase("Failed"))
    runs.wait("hangs", lambda s: condition(s, "TrainingStalled")["status"] == "True")

    done = arlow("fleet", "-n", runs.namespace)
    print(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    table = done.stdout
    assert re.match(r"trains Running 1 [\d,]+/[\d,]+ ", row(table, "trains"))
    assert row(table, "waits").startswith("waits Starting 1 ")
    assert row(table, "waits").endswith(" 64")
    assert row(table, "hangs").startswith("hangs Running, stalled 1 7/90 7.8% 0.5")
    assert row(table, "breaks").startswith("breaks Failed 1 ")
    assert reason(table, "waits").startswith("CannotStart: cannot start yet: no node takes the pod")
    assert reason(table, "hangs").startswith("NoStep: no step after 7 for ")
    assert reason(table, "breaks").startswith("BudgetSpent: ended once for the cause unknown")
    assert not re.search(r"^trains: ", table, re.MULTILINE)
    assert (
        f"4 runs in the namespace {runs.namespace}: 1 Failed, 2 Running (1 stalled), 1 Starting"
        in table
    )

    everywhere = arlow("fleet", "-A").stdout
    assert everywhere.startswith("NAMESPACE ")
    assert f"{runs.namespace}/breaks: BudgetSpent" in everywhere
