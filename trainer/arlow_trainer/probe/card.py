"""The model card of an export: what the run's probes measured, and the licence. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from arlow_trainer.probe.stored import Probe

_HEADER_END = "\n---\n"
_BEFORE = "\n## Limits\n"


def complete_card(card: str, probes: Sequence[Probe], licence: str | None) -> str:
    """Returns a model card with the probes of its checkpoint, as text and for Hugging Face's pages.

    A card without a header, of an earlier version, gets the text alone.

    Args:
        card: as `checkpoint.card.model_card` writes it.
        probes: results of the card's checkpoint; none leave the card without a table.
        licence: Hugging Face's name of a licence, such as `apache-2.0`; None leaves it open.
    """
    header: dict[str, Any] = {}
    if licence is not None:
        header["license"] = licence
    if probes:
        header["model-index"] = [{"name": _title(card), "results": [_result(p) for p in probes]}]
        before, limits, after = card.partition(_BEFORE)
        card = f"{before.rstrip()}\n\n{_table(probes)}{limits}{after}"
    if header and card.startswith("---\n"):
        lines = yaml.safe_dump(header, sort_keys=False, allow_unicode=True)
        card = card.replace(_HEADER_END, f"\n{lines}---\n", 1)
    return card


def _title(card: str) -> str:
    return next((line[2:] for line in card.splitlines() if line.startswith("# ")), "tower")


def _result(probe: Probe) -> dict[str, Any]:
    return {
        "task": {"type": "image-classification", "name": f"{probe.name} on frozen features"},
        "dataset": {"name": probe.data, "type": probe.data},
        "metrics": [{"type": "accuracy", "value": round(probe.accuracy, 4)}],
    }


def _table(probes: Sequence[Probe]) -> str:
    rows = [
        f"| `{probe.data}` | {probe.name} | {_percent(probe.accuracy, probe.spread)} | "
        f"{'' if probe.baseline is None else _percent(probe.baseline, None)} |"
        for probe in probes
    ]
    return (
        "## Evaluation\n\nTest accuracy of classifiers on the frozen features, and on those of the "
        "same tower with random weights:\n\n"
        "| Data set | Classifier | Accuracy | Random weights |\n| --- | --- | --- | --- |\n"
        + "\n".join(rows)
        + "\n"
    )


def _percent(share: float, spread: float | None) -> str:
    deviation = "" if spread is None else f" ± {100 * spread:.1f}"
    return f"{100 * share:.1f}{deviation} %"
