"""A plain transformers environment: a process that cannot import this project."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import arlow_trainer

SOURCE = Path(arlow_trainer.__file__).parents[1]
PREAMBLE = f"""
import sys
sys.path = [entry for entry in sys.path if entry != {str(SOURCE)!r}]
# An editable installation of packages in several folders is a finder.
sys.meta_path = [finder for finder in sys.meta_path if "__editable__" not in finder.__module__]
try:
    import arlow_trainer
except ImportError:
    pass
else:
    raise SystemExit("this process can still import arlow_trainer")
"""


def read_without_project(folder: Path, code: str) -> None:
    """Runs code in `folder`, in a process without this project, its caches within the folder."""
    cache = {"HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", PREAMBLE + textwrap.dedent(code)],
        cwd=folder,
        env=os.environ | cache,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
