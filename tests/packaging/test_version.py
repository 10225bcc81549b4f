"""One version, that of pyproject.toml, in all that carries one."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
VERSION = PROJECT["version"]


@pytest.mark.parametrize("file", ["store.yaml", "prepare-data.yaml"])
def test_the_manifests_name_images_of_this_version(file: str) -> None:
    text = (REPOSITORY / "manifests" / file).read_text("utf-8")
    images = re.findall(r"image: (\S+)", text)
    assert images
    for image in images:
        assert re.fullmatch(rf"localhost/arlow-[a-z]+:{re.escape(VERSION)}", image), "run make docs"


def test_the_images_are_told_the_version_and_nothing_else_names_it() -> None:
    makefile = (REPOSITORY / "Makefile").read_text("utf-8")
    assert "--build-arg VERSION=$(VERSION)" in makefile
    dockerfile = (REPOSITORY / "Dockerfile").read_text("utf-8")
    assert VERSION not in dockerfile
    assert f'"{VERSION}"' not in makefile
