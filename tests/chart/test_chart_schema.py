"""values.schema.json knows every value, and refuses all else by its name."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from rendering import CHART, RefusedByHelm, only, render

from arlow_operator.run_defaults import RunDefaults
from arlow_operator.settings import GPU_PRODUCTS

SCHEMA = json.loads((CHART / "values.schema.json").read_text("utf-8"))
VALUES = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))


def resolved(node: Any) -> Any:
    if "$ref" in node:
        return SCHEMA["$defs"][node["$ref"].rpartition("/")[2]] | node
    return node


def sections(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every schema of an object with fields of its own."""
    node = resolved(node)
    if "properties" in node:
        yield path, node
        for name, each in node["properties"].items():
            yield from sections(each, f"{path}.{name}" if path else name)


def test_values_and_schema_have_the_same_fields() -> None:
    for path, node in sections(SCHEMA):
        value = VALUES
        for key in path.split(".") if path else ():
            value = value[key]
        if value or path in ("", "runs", "crds"):
            known = node["properties"].keys() - {"global", "claims"}
            assert set(value) == known, path


def test_no_section_takes_what_it_does_not_know() -> None:
    for path, node in sections(SCHEMA):
        assert node["additionalProperties"] is False, path


def test_the_readme_is_that_of_the_values() -> None:
    generator = runpy.run_path(str(CHART / "src" / "readme.py"))
    assert generator["TARGET"].read_text("utf-8") == generator["readme"](), "run `make docs`"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"imge": {}}, ["imge"]),
        ({"image": {"registy": "r.io"}}, ["/image", "registy"]),
        ({"image": {"registry": "https://r.io"}}, ["/image/registry"]),
        ({"image": {"operator": {"digest": "abc"}}}, ["/image/operator/digest"]),
        ({"image": {"trainer": {"tag": 1}}}, ["/image/trainer/tag", "string"]),
        ({"image": {"pullPolicy": "Sometimes"}}, ["/image/pullPolicy"]),
        ({"imagePullSecrets": ["registry"]}, ["/imagePullSecrets/0", "object"]),
        ({"watchNamespaces": "a"}, ["/watchNamespaces", "array"]),
        ({"watchNamespaces": ["A"]}, ["/watchNamespaces/0"]),
        ({"watchNamespaces": ["a", "a"]}, ["/watchNamespaces"]),
        ({"crds": {"enabled": "yes"}}, ["/crds/enabled", "boolean"]),
        ({"serviceAccount": {"create": False}}, ["/serviceAccount/name"]),
        ({"tolerations": [{"kye": "a"}]}, ["/tolerations/0", "kye"]),
        ({"resources": {"limits": {"memory": "much"}}}, ["/resources/limits/memory"]),
        ({"gpu": {"products": {"h1000": "x"}}}, ["/gpu/products", "h1000"]),
        ({"progressSeconds": "15"}, ["/progressSeconds", "number"]),
        ({"progressSeconds": 0}, ["/progressSeconds"]),
        ({"podDisruptionBudget": {"maxUnavailable": "one"}}, ["/podDisruptionBudget"]),
        ({"runs": {"env": {"A": 1}}}, ["/runs/env/A", "string"]),
        ({"runs": {"env": {"A B": "x"}}}, ["/runs/env", "A B"]),
        ({"runs": {"env": {"ARLOW_POD": "x"}}}, ["/runs/env/ARLOW_POD"]),
        ({"runs": {"labels": {"arlow.dev/run": "x"}}}, ["/runs/labels/arlow.dev"]),
        ({"runs": {"storeEndpoint": "minio:9000"}}, ["/runs/storeEndpoint"]),
        ({"runs": {"caBundle": "ca.crt"}}, ["/runs/caBundle"]),
        ({"runs": {"doNotDisrupt": "false"}}, ["/runs/doNotDisrupt", "boolean"]),
        ({"runs": {"networkPolicy": {"namespaces": "a"}}}, ["/runs/networkPolicy/namespaces"]),
        ({"notifications": {"webhookSecret": "chat"}}, ["/notifications/webhookSecret", "object"]),
        ({"notifications": {"webhookSecret": {"name": "A b"}}}, ["/webhookSecret/name"]),
        ({"notifications": {"webhookSecret": {"key": ""}}}, ["/webhookSecret/key"]),
        ({"networkPolicy": {"webhook": {"ports": ["https"]}}}, ["/networkPolicy/webhook/ports/0"]),
        ({"networkPolicy": {"apiServer": {"cidrs": ["10.0.0.1"]}}}, ["/networkPolicy/apiServer"]),
        ({"networkPolicy": {"apiServer": {"ports": []}}}, ["/networkPolicy/apiServer/ports"]),
        ({"podMonitors": {"interval": 15}}, ["/podMonitors/interval", "string"]),
        ({"prometheusRule": {"runbookBaseUrl": "wiki"}}, ["/prometheusRule/runbookBaseUrl"]),
        ({"dashboards": {"labels": {"grafana_dashboard": 1}}}, ["/dashboards/labels"]),
        ({"openshift": 1}, ["/openshift", "boolean"]),
    ],
)
def test_what_is_no_value_is_refused_with_its_field(
    values: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(RefusedByHelm) as caught:
        render(values)
    assert "schema" in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_the_values_of_the_docs_are_values() -> None:
    text = (CHART.parent / "docs" / "installing.md").read_text("utf-8")
    (block,) = re.findall(r"```yaml\n(image:.*?)```", text, re.DOTALL)
    values = yaml.safe_load(block)
    config = only(render(values), "ConfigMap", "arlow-operator-runs")
    defaults = RunDefaults.model_validate(yaml.safe_load(config["data"]["runs.yaml"]))
    assert defaults.store_endpoint == values["runs"]["storeEndpoint"]
    assert defaults.env == values["runs"]["env"]


def test_the_schema_knows_the_gpus_of_the_operator() -> None:
    products = SCHEMA["properties"]["gpu"]["properties"]["products"]
    assert set(products["properties"]) == set(GPU_PRODUCTS)


def test_what_the_operator_would_refuse_is_refused_by_helm_already() -> None:
    """Otherwise a mistake would show as an operator that does not start."""
    known = {field.alias for field in RunDefaults.model_fields.values()} - {"fixedIds"}
    assert known == VALUES["runs"].keys() - {"allowCpu", "networkPolicy"}
