"""`arlow config`, as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from arlow_trainer.config import ExitCode, load_run

THREE_MISTAKES = """\
apiVersion: arlow.dev/v1alpha1
kind: ArlowPretrain
metadata:
  name: mistaken
spec:
  training:
    mae: {maskRatio: 1.5}
    model: {embed_dim: 768}
    data: {imageSize: 225}
"""


def arlow(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = "from arlow_trainer.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "TERM": "dumb", **environment},
        timeout=60,
    )


def test_validate_plans_with_the_declared_gpus() -> None:
    gpus = ["--set", "nodes={gpus: 2, gpuProduct: v100-16gb}"]
    result = arlow("config", "validate", "arlow-vision-3072", *gpus)
    assert result.returncode == ExitCode.OUT_OF_MEMORY
    assert "arlow-vision-3072: on v100-16gb: the run needs" in result.stderr
    assert "valid" not in result.stdout


def test_show_writes_a_manifest_that_is_the_same_run(tmp_path: Path) -> None:
    shown = arlow("config", "show", "tiny", "--set", "seed=7", "--set", "checkpoint.url=s3://b/r")
    assert (shown.returncode, shown.stderr) == (0, "")
    path = tmp_path / "run.yaml"
    path.write_text(shown.stdout)
    assert load_run(str(path)) == load_run("tiny", ["seed=7", "checkpoint.url=s3://b/r"])


def test_show_without_an_argument_is_the_full_run() -> None:
    assert arlow("config", "show").stdout == arlow("config", "show", "arlow-vision-3072").stdout


def test_validate_warns_of_a_run_that_fits_no_gpu() -> None:
    """More GPUs than the manifest says might hold it, so that it is no mistake."""
    sizes = ("model.embedDim=65536", "model.numHeads=64", "model.depth=100")
    large = [word for size in sizes for word in ("--set", size)]
    result = arlow("config", "validate", "arlow-vision-3072", *large)
    assert result.returncode == 0
    assert "arlow-vision-3072: valid" in result.stdout
    message = " ".join(result.stderr.split())
    assert "the largest GPU known: the run needs" in message
    assert "use more devices" in message
    cpus = arlow("config", "validate", "arlow-vision-3072", *large, "--set", "nodes.gpus=0")
    assert cpus.returncode == 0
    assert "GPU known" not in cpus.stderr
    assert "GPU known" not in arlow("config", "validate", "arlow-vision-3072").stderr


def test_validate_reports_every_mistake_of_every_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(THREE_MISTAKES)
    result = arlow("config", "validate", str(path), "tiny", "nowhere.yaml")
    assert result.returncode == ExitCode.CONFIG
    assert result.stdout == "tiny: valid\n"
    lines = result.stderr.splitlines()
    assert len(lines) == 4
    for field in ("mae.maskRatio", "model.embed_dim", "data.imageSize"):
        assert [line for line in lines if line.startswith(f"error: {path}: spec.training.{field}:")]
    assert lines[-1].startswith("error: nowhere.yaml: no such file")


def test_validate_warns_about_a_warm_up_that_never_ends() -> None:
    result = arlow("config", "validate", "arlow-vision-3072")
    assert result.returncode == 0
    assert result.stdout == "arlow-vision-3072: valid\n"
    [line] = result.stderr.splitlines()
    assert line.startswith("warning: arlow-vision-3072: spec.training.optimizer.warmupSteps: ")
    assert "5,004 steps" in line


def test_schema_is_json() -> None:
    assert json.loads(arlow("config", "schema").stdout)["title"] == "ArlowPretrain"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("confg",), "No such command"),
        (("config", "shw"), "Did you mean 'show'?"),
        (("config", "show", "--bad"), "No such option"),
        (("config", "validate"), "Missing argument"),
    ],
)
def test_a_wrong_command_line_ends_with_2(arguments: tuple[str, ...], message: str) -> None:
    result = arlow(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_help_is_fast_because_it_loads_no_torch() -> None:
    probe = (
        "import sys, atexit; from arlow_trainer.cli import main\n"
        "heavy = {'torch', 'transformers', 'deepspeed', 'datasets', 'numpy', 'matplotlib'}\n"
        "atexit.register(lambda: print('LOADED', heavy & set(sys.modules)))\n"
        "main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", probe, "--help"], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0
    assert "config" in result.stdout
    assert "LOADED set()" in result.stdout


def test_the_shell_completes_presets_and_manifests(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "mine.txt").touch()
    (tmp_path / "mines").mkdir()
    for typed, expected in (
        ("ti", {"tiny"}),
        (f"{tmp_path}/mi", {f"{tmp_path}/mine.yaml", f"{tmp_path}/mines/"}),
        (f"{tmp_path}/none/x", set()),
    ):
        result = subprocess.run(
            [Path(sys.executable).with_name("arlow")],
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "_ARLOW_COMPLETE": "complete_bash",
                "COMP_WORDS": f"arlow config show {typed}",
                "COMP_CWORD": "3",
            },
            timeout=60,
        )
        assert set(result.stdout.split()) == expected
