"""The reference page and the JSON schema follow from the schema."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from arlow_trainer.config import ExitCode
from arlow_trainer.config.models import ArlowPretrain
from arlow_trainer.config.reference import json_schema, reference_page

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_committed_page_is_current() -> None:
    assert PAGE.read_text("utf-8") == reference_page(), "run `make docs` and commit the page"


def test_every_field_has_a_meaning() -> None:
    rows = [line for line in reference_page().splitlines() if line.startswith("| `")]
    assert len(rows) > 50
    for row in rows:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
        assert len(cells) == 5, row
        assert cells[1], row
        assert cells[4].endswith("."), row


def test_no_field_of_the_schema_is_left_out() -> None:
    page = reference_page()
    schema = ArlowPretrain.model_json_schema(by_alias=True)
    for section in schema["$defs"].values():
        for field in section["properties"]:
            assert f"| `{field}` |" in page


def test_its_links_lead_somewhere() -> None:
    page = reference_page()
    headings = re.findall(r"^#+ (.*)$", page, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}
    links = set(re.findall(r"\]\(#([^)]*)\)", page))
    assert links
    assert links <= anchors


@pytest.mark.parametrize("code", ExitCode)
def test_every_exit_code_is_documented(code: ExitCode) -> None:
    assert re.search(
        rf"^\| {code.value} \| `{code.cause}` \| \w.*\. \| .*\|$",
        reference_page(),
        flags=re.MULTILINE,
    )


def test_the_json_schema_describes_the_manifest() -> None:
    schema = json.loads(json_schema())
    assert set(schema["properties"]) == {"apiVersion", "kind", "metadata", "spec", "status"}
    ratio = schema["$defs"]["MaeSection"]["properties"]["maskRatio"]
    assert (ratio["default"], ratio["exclusiveMinimum"], ratio["exclusiveMaximum"]) == (0.75, 0, 1)
    assert schema["$defs"]["ModelSection"]["additionalProperties"] is False
