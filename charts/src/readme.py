"""Writes charts/README.md from the comments in values.yaml: `make docs`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[1]
TARGET = CHART / "README.md"

HEAD = """\
<!-- Written by `make docs` from values.yaml; edit its comments. -->
# The Helm chart

It installs the operator of `ArlowPretrain` runs: the custom resource's definition, the operator
and its roles, roles for users, an admission policy, and, each behind a switch, network policies,
scraping, alerts and dashboards. It needs Kubernetes 1.30 or newer, and Helm 3.14 or newer.

    helm install arlow charts/ -n arlow-system --create-namespace --set image.registry=REGISTRY
    helm test arlow -n arlow-system

[docs/installing.md](../docs/installing.md) tells of upgrades, removal, networks without the
internet, OpenShift, network policies and GitOps. `values.schema.json` refuses unknown values and
wrong types.

## Values

| value | default | what it is |
| --- | --- | --- |
"""

KEY = re.compile(r"^( *)([A-Za-z]\w*):(.*)$")


def rows(text: str) -> Iterator[tuple[str, Any, str]]:
    """Yields the path, the default and the comment of every value that has a comment of its own.

    Raises ValueError for a value that has none and is not told of with the section that it is in.
    """
    defaults = yaml.safe_load(text)
    path: list[str] = []
    comment: list[str] = []
    told = ""
    for line in text.splitlines():
        found = KEY.match(line)
        if line.strip().startswith("#"):
            comment.append(line.strip().removeprefix("#").strip())
        elif found:
            depth = len(found[1]) // 2
            path = [*path[:depth], found[2]]
            name = ".".join(path)
            value = defaults
            for key in path:
                value = value[key]
            if comment:
                told = name
                yield name, value, " ".join(comment)
            elif not isinstance(value, dict) and not name.startswith(f"{told}."):
                raise ValueError(f"values.yaml: {name} has no comment")
            comment = []
        else:
            comment = []


def readme() -> str:
    """Returns the page."""
    lines = [
        f"| `{name}` | `{json.dumps(value)}` | {comment} |"
        for name, value, comment in rows((CHART / "values.yaml").read_text("utf-8"))
    ]
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(readme(), "utf-8")
    print(f"wrote {TARGET}")
