"""What only a GPU can show: `python -m benchmarks.gpu tests` and `... benchmarks`.

Each prints its page and writes it to a file that can be committed. On a machine without a GPU that
torch can use, they say what is missing. They use the `arlow_trainer` that is installed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

from arlow_trainer.config.cluster import NodesSection
from arlow_trainer.config.errors import ConfigError, ExitCode
from arlow_trainer.run.devices import check_torch, decide, read_facts

ROOT = Path(__file__).parents[1]
MARK = "gpu"
BENCHMARKS = ("full_run",)


def missing() -> str | None:
    """Returns what keeps this machine from running anything here; None where it can."""
    try:
        devices = decide(read_facts(os.environ), NodesSection(), None, {})
        if not devices.gpus:
            return f"a GPU is needed: {devices.words}"
        check_torch(True, 0)
    except ConfigError as error:
        return str(error)
    return None


def tests() -> tuple[int, str]:
    """Runs the tests that are marked as needing a GPU; returns pytest's code and their page."""
    from .result import Result, page

    load_before, start = os.getloadavg()[0], time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-m", MARK, f"--junitxml={report}"]
        code = subprocess.run([*command, "-p", "no:cacheprovider", "tests"], cwd=ROOT).returncode
        rows = [_row(case) for case in ElementTree.parse(report).iter("testcase")]
    seconds = time.perf_counter() - start
    how = f"Tests marked `{MARK}`, by `make test-gpu`, in {seconds:.0f} s."
    result = Result("GPU tests", how, ("test", "outcome", "seconds"), rows)
    return code, page([result], load_before, "")


def _row(case: ElementTree.Element) -> tuple[str, str, str]:
    outcome = "passed"
    for kind in ("failure", "error", "skipped"):
        found = case.find(kind)
        if found is not None:
            outcome = f"{kind}: {(found.get('message') or '').splitlines()[0][:120]}"
    name = f"{case.get('classname')}.{case.get('name')}".removeprefix("tests.")
    return f"`{name}`", outcome.replace("|", "/"), f"{float(case.get('time') or 0):.1f}"


def benchmarks(out: Path) -> int:
    """Measures what `BENCHMARKS` names, and writes the page; returns the exit code."""
    command = [sys.executable, "-m", "benchmarks", "--only", *BENCHMARKS, "--out", str(out)]
    return subprocess.run(command, cwd=ROOT).returncode


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("what", choices=("tests", "benchmarks"))
    parser.add_argument("--out", type=Path, required=True, help="the page's file")
    options = parser.parse_args()
    if lacking := missing():
        print(f"{options.what} on a GPU: {lacking}", file=sys.stderr)
        return ExitCode.CONFIG
    out = options.out.absolute()
    if options.what == "benchmarks":
        return benchmarks(out)
    code, text = tests()
    out.write_text(text)
    print(text)
    return code


if __name__ == "__main__":
    sys.exit(main())
