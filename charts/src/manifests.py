"""Writes manifests/operator/, what the chart installs with its defaults, for users without Helm.

`make docs`, or `python charts/src/manifests.py`; it needs `helm`. A test fails when the committed
files are not what this one writes.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

CHART = Path(__file__).parents[1]
TARGET = CHART.parent / "manifests" / "operator"

NAMESPACE = "arlow-system"
VALUES = ("image.registry=localhost", "crds.keep=false")
HEADER = "# Written by `make docs` from the chart in charts/; edit that.\n"
NAMESPACE_MANIFEST = f"""apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    pod-security.kubernetes.io/enforce: restricted
"""
# What is Helm's own.
HELM_LABELS = re.compile(r"^ *(helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n", re.MULTILINE)
# Every document begins with the template that it comes from.
SOURCE = re.compile(r"^# Source: [^/]+/templates/(\S+)\.yaml\n", re.MULTILINE)
# The file of a template's objects; those of `helm test` are for Helm alone.
FILES = {
    "crd": "crd.yaml",
    "roles": "roles.yaml",
    "admission-policy": "admission.yaml",
    "run-defaults": "operator.yaml",
    "operator": "operator.yaml",
}
TESTS = "tests/"


def manifests() -> dict[str, str]:
    """Returns the files by their names. Raises CalledProcessError where Helm refuses the chart."""
    command = ["helm", "template", "arlow", str(CHART), "--namespace", NAMESPACE]
    command += ["--set", ",".join(VALUES)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    documents: dict[str, list[str]] = {name: [] for name in FILES.values()}
    documents["operator.yaml"].append(NAMESPACE_MANIFEST)
    for template, document in _documents(text):
        if not template.startswith(TESTS):
            documents[FILES[template]].append(HELM_LABELS.sub("", document))
    return {name: HEADER + "---\n".join(each) for name, each in documents.items()}


def _documents(text: str) -> Iterator[tuple[str, str]]:
    for document in re.split(r"^---\n", text, flags=re.MULTILINE):
        parts = SOURCE.split(document)
        if len(parts) == 3:
            _, template, body = parts
            yield template, body.strip("\n") + "\n"


def main() -> None:
    """Writes the files."""
    try:
        found = manifests()
    except FileNotFoundError:
        sys.exit("error: helm is not on the PATH; manifests/operator/ is made with it")
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {error.stderr}")
    for name, text in found.items():
        (TARGET / name).write_text(text, "utf-8")
        print(f"wrote {TARGET / name}")


if __name__ == "__main__":
    main()
