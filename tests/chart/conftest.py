"""Tests of the rendered chart. They need Helm, and no cluster."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture(autouse=True)
def _helm() -> None:
    if shutil.which("helm") is None:
        pytest.skip("no helm on the PATH: install Helm 3.14 or newer to test the chart")
