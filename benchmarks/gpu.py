"""What only a GPU can show: `python -m benchmarks.gpu tests` and `... benchmarks`.

Each prints its page and writes it to a file that can be committed. Where something is missing,
they say what. They use the `arlow_trainer` that is installed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
MARK = "gpu"
_MARKED = re.compile(r"^@needs_gpu$", re.MULTILINE)
# The extras `trainer` and `dev` have more: these are what is imported here.
MODULES = (
    *("torch", "deepspeed", "transformers", "datasets", "safetensors", "numpy", "PIL", "av"),
    *("fsspec", "pydantic", "yaml", "typer", "rich", "structlog", "tenacity", "psutil"),
    *("prometheus_client", "matplotlib", "jinja2", "markdown_it"),
)
TEST_MODULES = ("pytest", "hypothesis")
CONFIG = 78


def missing_modules(names: tuple[str, ...]) -> str | None:
    """Returns which of these modules this Python lacks, and what to do; None where it has all."""
    lacking = [name for name in names if find_spec(name) is None]
    if not lacking:
        return None
    return (
        f"{sys.executable} lacks {', '.join(lacking)}: put their wheels into the folder that "
        "WHEELS= names, or install the extras `trainer` and `dev`"
    )


def missing_gpu() -> str | None:
    """Returns what keeps this machine from running anything here; None where it can."""
    from arlow_trainer.config.cluster import NodesSection
    from arlow_trainer.config.errors import ConfigError
    from arlow_trainer.run.devices import check_torch, decide, read_facts

    try:
        devices = decide(read_facts(os.environ), NodesSection(), None, {})
        if not devices.gpus:
            return f"a GPU is needed: {devices.words}"
        check_torch(True, 0)
    except ConfigError as error:
        return str(error)
    return None


def marked_files() -> list[str]:
    """Returns the test files that have tests which need a GPU.

    The others import what a machine with a GPU need not have.
    """
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(file.relative_to(ROOT)) for file in files if _MARKED.search(file.read_text())]


def tests() -> tuple[int, str]:
    """Runs the tests that are marked as needing a GPU; returns pytest's code and their page."""
    from .result import GPU_TESTS_HEAD, Result, page

    load_before, start = os.getloadavg()[0], time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-m", MARK, f"--junitxml={report}"]
        code = subprocess.run([*command, "-p", "no:cacheprovider", *marked_files()], cwd=ROOT)
        rows = [_row(case) for case in ElementTree.parse(report).iter("testcase")]
    seconds = time.perf_counter() - start
    how = f"Tests marked `{MARK}`, in {seconds:.0f} s."
    result = Result("GPU tests", how, ("test", "outcome", "seconds"), rows)
    return code.returncode, page(GPU_TESTS_HEAD, [result], load_before, "")


def _row(case: ElementTree.Element) -> tuple[str, str, str]:
    outcome = "passed"
    for kind in ("failure", "error", "skipped"):
        found = case.find(kind)
        if found is not None:
            outcome = f"{kind}: {(found.get('message') or '').splitlines()[0][:120]}"
    name = f"{case.get('classname')}.{case.get('name')}".removeprefix("tests.")
    return f"`{name}`", outcome.replace("|", "/"), f"{float(case.get('time') or 0):.1f}"


def benchmarks(out: Path, toy: bool) -> int:
    """Measures what needs a GPU, and writes the page; returns the exit code."""
    from .__main__ import GPU_BENCHMARKS

    command = [sys.executable, "-m", "benchmarks", "--only", *GPU_BENCHMARKS, "--out", str(out)]
    return subprocess.run([*command, *(["--toy"] if toy else [])], cwd=ROOT).returncode


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("what", choices=("tests", "benchmarks"))
    parser.add_argument("--out", type=Path, required=True, help="the page's file")
    parser.add_argument(
        "--toy", action="store_true", help="without a GPU: only shows that all of it runs"
    )
    options = parser.parse_args()
    lacking = missing_modules(MODULES + (TEST_MODULES if options.what == "tests" else ()))
    if lacking is None and not options.toy:
        lacking = missing_gpu()
    if lacking:
        print(f"{options.what} on a GPU: {lacking}", file=sys.stderr)
        return CONFIG
    out = options.out.absolute()
    if options.what == "benchmarks":
        return benchmarks(out, options.toy)
    code, text = tests()
    out.write_text(text)
    print(text)
    return code


if __name__ == "__main__":
    sys.exit(main())
