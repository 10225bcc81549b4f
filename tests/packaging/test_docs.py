"""The pages about images and clusters say what the repository has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
PAGES = ("gpu-cluster.md", "images.md", "quickstart.md")
MAKEFILE = (REPOSITORY / "Makefile").read_text("utf-8")


def text(page: str) -> str:
    return (DOCS / page).read_text("utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text(page)):
        assert "://" in target or (DOCS / target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_every_manifest_lock_and_make_target_exists(page: str) -> None:
    for path in re.findall(r"(?:manifests|locks|scripts)/[\w.-]+\w", text(page)):
        assert (REPOSITORY / path).exists(), path
    for target in re.findall(r"`?make ([a-z-]+)", text(page)):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


def test_the_figures_of_the_node_are_those_of_the_plan() -> None:
    plan = text("planning.md")
    for figure in ("29 MB/s", "256 MB/s", "13 MB/s", "112 MB/s", "23.0 GB", "5.75 GB", "21.4 GiB"):
        assert figure in text("gpu-cluster.md")
        assert figure in plan, f"{figure} is no longer in planning.md: mend gpu-cluster.md"


def test_every_alert_is_one_of_the_chart() -> None:
    alerts = (REPOSITORY / "charts" / "alerts" / "trainer.yaml").read_text("utf-8")
    for name in re.findall(r"\bArlow[A-Z]\w+", text("gpu-cluster.md")):
        assert name == "ArlowPretrain" or f"alert: {name}\n" in alerts, name


def test_the_quickstart_has_under_ten_commands() -> None:
    commands = re.findall(r"^ +\$ (.*)", text("quickstart.md"), re.MULTILINE)
    assert len([each for each in commands if not each.startswith("export ")]) < 10
