"""The operator's image has neither torch nor transformers."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module", ["arlow_trainer.config", "arlow_trainer.config.reference", "arlow_trainer.plan"]
)
def test_it_loads_neither_torch_nor_transformers(module: str) -> None:
    probe = f"import sys, {module}; print(*{{n.partition('.')[0] for n in sys.modules}})"
    loaded = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "arlow_trainer" in loaded
    assert {"torch", "transformers", "numpy", "datasets", "rich"}.isdisjoint(loaded)
