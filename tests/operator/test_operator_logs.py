"""Log lines of the operator."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import logging
from arlow_operator.logs import configure_logging, of_run
configure_logging()
log = logging.getLogger("arlow_operator.main")
with of_run(namespace="team", run="a"):
    try:
        raise ValueError("a bug")
    except ValueError:
        log.exception("the pass failed")
log.info("looks after the runs of %s", "all namespaces")
"""


def test_a_line_is_json_and_names_the_run_that_it_is_of() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    failed, general = (json.loads(line) for line in done.stderr.splitlines())
    assert (failed["namespace"], failed["run"]) == ("team", "a")
    assert (failed["level"], failed["message"]) == ("error", "the pass failed")
    assert "ValueError: a bug" in failed["exception"]
    assert general["message"] == "looks after the runs of all namespaces"
    assert "run" not in general
