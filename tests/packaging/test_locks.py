"""The images' locks: complete, hashed, and of the versions that constraints.txt says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

REPOSITORY = Path(__file__).parents[2]
LOCKS = sorted(path.stem for path in (REPOSITORY / "locks").glob("*.txt"))
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
CUDA = re.compile(r"nvidia-.*|cuda-.*|triton")

# What each extra is installed from.
LOCKS_OF = {
    "trainer": ("torch-cuda", "trainer"),
    "operator": ("operator",),
    "init": ("trainer", "operator"),
    "unpack": ("trainer",),
    "demo": ("pictures",),
}


def pins(text: str) -> dict[str, str]:
    """Returns the versions of `NAME==VERSION` lines by canonical name."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s\\]+)", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def lock(name: str) -> dict[str, str]:
    return pins((REPOSITORY / "locks" / f"{name}.txt").read_text("utf-8"))


CONSTRAINTS = pins((REPOSITORY / "constraints.txt").read_text("utf-8"))


def test_there_is_one_lock_for_each_part_of_the_images() -> None:
    expected = ["build", "operator", "pictures", "store", "torch-cpu", "torch-cuda", "trainer"]
    assert expected == LOCKS


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_has_hashes_and_none_an_address(name: str) -> None:
    text = (REPOSITORY / "locks" / f"{name}.txt").read_text("utf-8")
    assert "://" not in text
    assert "/" not in re.sub(r"#.*", "", text)
    lines = [
        each
        for each in re.sub(r"\\\n", " ", text).splitlines()
        if each.strip() and not each.lstrip().startswith("#")
    ]
    assert lines
    for line in lines:
        requirement, *hashes = line.split()
        assert re.fullmatch(r"[A-Za-z0-9._-]+==\S+", requirement), line
        assert hashes, f"{requirement}: run `make lock`"
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes)


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_the_versions_that_are_tested(name: str) -> None:
    for package, version in lock(name).items():
        if CUDA.fullmatch(package):
            assert name == "torch-cuda", f"{package}: of torch's CUDA build alone"
        else:
            public = Version(version).public
            assert CONSTRAINTS.get(package) == public, f"{package}: run `make lock`"


@pytest.mark.parametrize("extra", LOCKS_OF)
def test_a_lock_has_all_that_its_extra_asks_for(extra: str) -> None:
    requirements = [Requirement(each) for each in PROJECT["optional-dependencies"][extra]]
    if extra in ("trainer", "operator"):
        requirements += [Requirement(each) for each in PROJECT["dependencies"]]
    for requirement in requirements:
        name = canonicalize_name(requirement.name)
        found = {version for each in LOCKS_OF[extra] if (version := lock(each).get(name))}
        assert found, f"{name} is in no lock of {extra}: run `make lock`"
        assert all(requirement.specifier.contains(each) for each in found)


def test_every_extra_keeps_to_the_constraints() -> None:
    for extra, requirements in PROJECT["optional-dependencies"].items():
        for requirement in map(Requirement, requirements):
            pinned = CONSTRAINTS.get(canonicalize_name(requirement.name))
            assert pinned, f"{extra}: {requirement.name} has no version in constraints.txt"
            assert requirement.specifier.contains(pinned), f"{extra}: {requirement}, {pinned}"


def test_the_two_builds_of_torch_are_one_version() -> None:
    assert lock("torch-cuda")["torch"] == CONSTRAINTS["torch"]
    assert lock("torch-cpu")["torch"] == f"{CONSTRAINTS['torch']}+cpu"


def test_the_trainers_lock_leaves_to_torchs_what_both_need() -> None:
    for build in ("torch-cpu", "torch-cuda"):
        assert not lock(build).keys() & lock("trainer").keys()


def test_the_operator_has_no_torch() -> None:
    assert not lock("operator").keys() & {"torch", "numpy", "transformers", "deepspeed"}
