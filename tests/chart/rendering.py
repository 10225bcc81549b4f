"""Renders the chart with Helm, as users do."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[2] / "charts"
NAMESPACE = "arlow-system"
MONITORING = ("monitoring.coreos.com/v1/PodMonitor", "monitoring.coreos.com/v1/PrometheusRule")

Json = dict[str, Any]

# Values with everything that is behind a switch.
EVERYTHING: dict[str, Any] = {
    "watchNamespaces": ["a", "b"],
    "podDisruptionBudget": {"enabled": True},
    "notifications": {"webhookSecret": {"name": "chat"}},
    "networkPolicy": {"enabled": True},
    "runs": {"networkPolicy": {"namespaces": ["a"]}},
    "podMonitors": {"enabled": True},
    "prometheusRule": {"enabled": True},
    "dashboards": {"enabled": True},
}


class RefusedByHelm(Exception):
    """Helm refused the values; the message is what it wrote."""


def helm(*arguments: str, stdin: str | None = None) -> str:
    """Returns what Helm prints; without Helm the test skips. Raises RefusedByHelm."""
    if shutil.which("helm") is None:
        pytest.skip("no helm on the PATH: .ci/install-helm FOLDER", allow_module_level=True)
    done = subprocess.run(["helm", *arguments], input=stdin, capture_output=True, text=True)
    if done.returncode:
        raise RefusedByHelm(done.stderr)
    return done.stdout


def render(values: Mapping[str, Any] | None = None, *, apis: Sequence[str] = ()) -> list[Json]:
    """Returns the objects of a release `arlow`, helm tests included, none of them shared.

    Args:
        values: of the chart, over its defaults.
        apis: what the cluster has beside Kubernetes' own.

    Raises RefusedByHelm.
    """
    return list(yaml.safe_load_all(_rendered(json.dumps(values or {}), tuple(apis))))


@functools.cache
def _rendered(values: str, apis: Sequence[str]) -> str:
    flags = [flag for api in apis for flag in ("--api-versions", api)]
    arguments = ("template", "arlow", str(CHART), "--namespace", NAMESPACE, *flags)
    return helm(*arguments, "--values", "-", stdin=values)


def of_kind(objects: Sequence[Json], kind: str) -> list[Json]:
    """Returns the objects of a kind."""
    return [each for each in objects if each["kind"] == kind]


def only(objects: Sequence[Json], kind: str, name: str = "") -> Json:
    """Returns the one object of a kind, and of a name where it is given."""
    (found,) = [e for e in of_kind(objects, kind) if not name or e["metadata"]["name"] == name]
    return found


def pod_templates(objects: Sequence[Json]) -> list[Json]:
    """Returns the pods and the templates of pods."""
    return of_kind(objects, "Pod") + [
        each["spec"]["template"] for each in of_kind(objects, "Deployment")
    ]
