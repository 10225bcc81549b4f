"""`make test-gpu` and `make bench-gpu` from a folder of wheels, without a network."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MADE_HERE = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the targets need, beside a folder with this project's wheel."""
    if shutil.which("make") is None:
        pytest.skip("needs make")
    folder = tmp_path_factory.mktemp("machine") / "checkout"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "README.md", "LICENSE", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    for name in ("trainer", "operator", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=MADE_HERE)
    wheels = folder.parent / "wheels"
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(wheels), "."]
    subprocess.run([sys.executable, "-m", "pip", *build], cwd=folder, check=True)
    return folder


def make(checkout: Path, target: str, wheels: Path) -> subprocess.CompletedProcess[str]:
    arguments = [target, f"WHEELS={wheels}", f"PYTHON={sys.executable}"]
    return subprocess.run(
        ["make", *arguments], cwd=checkout, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize(("target", "what"), [("test-gpu", "tests"), ("bench-gpu", "benchmarks")])
def test_with_the_wheel_they_say_that_there_is_no_gpu(
    checkout: Path, target: str, what: str
) -> None:
    done = make(checkout, target, checkout.parent / "wheels")
    assert done.returncode != 0
    assert f"{what} on a GPU: a GPU is needed: 1 rank on CPUs" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    python = checkout / ".venv-gpu" / "bin" / "python"
    code = "import arlow_trainer, torch; print(arlow_trainer.__file__)"
    found = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    # The wheel's package, with the machine's own torch.
    assert Path(found.stdout.strip()).is_relative_to(checkout / ".venv-gpu")


def test_a_folder_without_wheels_is_told(checkout: Path, tmp_path: Path) -> None:
    done = make(checkout, "test-gpu", tmp_path)
    assert done.returncode != 0
    assert f"no wheels in {tmp_path}" in done.stderr
