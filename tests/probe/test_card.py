"""An export's model card: the probes' results, and the licence."""

from __future__ import annotations

import pytest
import yaml

from arlow_trainer.checkpoint.card import model_card
from arlow_trainer.probe.card import complete_card
from arlow_trainer.probe.stored import Probe
from support.stored_run import state_at, tiny_run

KNN = Probe("fashion-mnist", "knn", 20, 0.7134, 0.004, 0.512, 20)
LINEAR = Probe("fashion-mnist", "linear", 20, 0.75)


@pytest.fixture(name="card")
def card_of_a_run() -> str:
    run = tiny_run()
    return model_card(run, state_at(20, run), 1000)


def header(card: str) -> dict[str, object]:
    read = yaml.safe_load(card.split("---\n")[1])
    assert isinstance(read, dict)
    return read


def test_results_stand_in_the_text_and_in_the_header(card: str) -> None:
    completed = complete_card(card, [KNN, LINEAR], "apache-2.0")
    assert "| `fashion-mnist` | knn, k=20 | 71.3 ± 0.4 % | 51.2 % |\n" in completed
    assert "| `fashion-mnist` | linear | 75.0 % |  |\n\n## Limits\n" in completed
    found = header(completed)
    assert found["license"] == "apache-2.0"
    assert header(card).items() <= found.items()
    (index,) = found["model-index"]  # type: ignore[misc]
    assert index["name"] == "tiny-run"
    assert [each["metrics"][0]["value"] for each in index["results"]] == [0.7134, 0.75]


def test_a_run_without_probes_keeps_its_card(card: str) -> None:
    assert complete_card(card, [], None) == card
    assert header(complete_card(card, [], "mit")) == header(card) | {"license": "mit"}


def test_a_card_of_an_earlier_version_gets_the_table_alone() -> None:
    completed = complete_card("# old\n\nwords\n", [LINEAR], "mit")
    assert completed.startswith("# old\n\nwords\n\n## Evaluation\n")
    assert "license" not in completed
