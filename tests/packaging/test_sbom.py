"""The bills of materials."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_locks import REPOSITORY, lock

LOCKS_OF = {
    "trainer": ("torch-cuda", "trainer"),
    "operator": ("operator",),
    "store": ("store",),
}


@pytest.mark.parametrize("image", LOCKS_OF)
def test_a_bill_has_every_package_once_with_its_hashes(image: str, tmp_path: Path) -> None:
    beside = Path(sys.executable).with_name("cyclonedx-py")
    program = str(beside) if beside.exists() else shutil.which("cyclonedx-py")
    if program is None:
        pytest.skip("no cyclonedx-py: pip install cyclonedx-bom")
    bill = tmp_path / "bill.json"
    locks = [f"locks/{name}.txt" for name in LOCKS_OF[image]]
    done = subprocess.run(
        ["scripts/sbom", program, str(bill), *locks], cwd=REPOSITORY, capture_output=True, text=True
    )
    # It has validated what it wrote.
    assert done.returncode == 0, done.stderr
    written = json.loads(bill.read_text("utf-8"))
    assert written["bomFormat"] == "CycloneDX"
    root = written["metadata"]["component"]
    assert (root["name"], root["licenses"][0]["license"]["id"]) == ("arlow-pretrain", "Apache-2.0")
    expected = {name: version for each in LOCKS_OF[image] for name, version in lock(each).items()}
    found = [(each["name"], each["version"]) for each in written["components"]]
    assert sorted(found) == sorted(expected.items())
    for each in written["components"]:
        assert each["purl"].startswith("pkg:pypi/")
        references = each["externalReferences"]
        assert all(hash["alg"] == "SHA-256" for ref in references for hash in ref["hashes"])
