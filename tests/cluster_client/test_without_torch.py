"""The commands for runs in a cluster need the extra `cluster` alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

# What only the extra `trainer` brings, and is imported by its name.
TRAINER_ALONE = [
    *("torch", "transformers", "deepspeed", "datasets", "safetensors", "numpy", "PIL", "av"),
    *("fsspec", "s3fs", "gcsfs", "adlfs", "matplotlib", "jinja2", "markupsafe", "ninja"),
]
PROGRAM = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {TRAINER_ALONE!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
from arlow_trainer.cli import main
main()
"""


@pytest.mark.parametrize("command", ["watch apt/run", "retry apt/run", "fleet"])
def test_a_command_asks_the_cluster_without_torch(command: str, tmp_path: Path) -> None:
    config = tmp_path / "kubeconfig"
    config.write_text(
        "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: "
        "{cluster: c, user: u}}], users: [{name: u, user: {}}], clusters: [{name: c, cluster: "
        "{server: 'http://127.0.0.1:9'}}]}"
    )
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command.split()],
        capture_output=True,
        text=True,
        env={"KUBECONFIG": str(config), "PATH": "/usr/bin:/bin", **_python_path()},
    )
    assert "the cluster does not answer" in done.stderr, done.stderr
    assert done.returncode == 78


def test_the_extra_names_all_that_the_trainer_shares_with_it() -> None:
    text = Path(__file__).parents[2].joinpath("pyproject.toml").read_text("utf-8")
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    shared = set(extras["cluster"]) & set(extras["trainer"])
    assert shared == set(extras["cluster"]) - {"kubernetes>=37,<38"}


def _python_path() -> dict[str, str]:
    return {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}
