"""What has a limit in Kubernetes stays well below it."""

from __future__ import annotations

import base64
import gzip
import json
import tarfile
from pathlib import Path

from rendering import CHART, EVERYTHING, MONITORING, helm, only, render

# kubectl's client-side apply copies the object into an annotation, and all of these have 256 KiB.
DEFINITION = 256 * 1024
# A release is a Secret, which etcd takes up to a size of 1 MiB.
RELEASE = 1024 * 1024


def test_the_definition_can_be_applied_client_side() -> None:
    assert (CHART / "files" / "crd.yaml").stat().st_size < DEFINITION
    assert len(json.dumps(only(render(), "CustomResourceDefinition"))) < DEFINITION


def test_the_package_and_what_helm_stores_of_a_release_are_small(tmp_path: Path) -> None:
    helm("package", str(CHART), "--destination", str(tmp_path))
    (package,) = tmp_path.glob("*.tgz")
    assert package.stat().st_size < RELEASE
    # Helm stores chart, values and manifest as compressed JSON, in base64 twice.
    files = [path.read_text("utf-8") for path in CHART.rglob("*") if path.is_file()]
    release = json.dumps([files, render(EVERYTHING, apis=MONITORING)]).encode()
    stored = base64.b64encode(base64.b64encode(gzip.compress(release)))
    assert len(stored) < RELEASE / 2


def test_the_package_has_no_sources_of_what_is_generated(tmp_path: Path) -> None:
    helm("package", str(CHART), "--destination", str(tmp_path))
    (package,) = tmp_path.glob("*.tgz")
    with tarfile.open(package) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert not [name for name in names if name.startswith("src/")]
    needed = {"Chart.yaml", "README.md", "values.yaml", "values.schema.json", "files/crd.yaml"}
    assert needed <= names
    assert {"alerts/trainer.yaml", "dashboards/run.json", "templates/NOTES.txt"} <= names
