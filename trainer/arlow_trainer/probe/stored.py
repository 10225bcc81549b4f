"""The probe results stored with a run, in `probe.jsonl`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from arlow_trainer.storage.json_text import parse_object

PROBE_FILE = "probe.jsonl"


@dataclass(frozen=True)
class Probe:
    """A stored probe result.

    Attributes:
        data: the labelled set.
        method: "knn" or "linear".
        step: the checkpoint's step.
        accuracy: mean over seeds, 0 to 1.
        spread: its standard deviation over seeds; None where it was not recorded.
        baseline: accuracy of random weights; None where it was not recorded.
        neighbors: k of k-nearest neighbours; None for other methods or where it was not recorded.
    """

    data: str
    method: str
    step: int
    accuracy: float
    spread: float | None = None
    baseline: float | None = None
    neighbors: int | None = None

    @property
    def name(self) -> str:
        """The method, with k where it has one."""
        return self.method if self.neighbors is None else f"{self.method}, k={self.neighbors}"


def read_probes(lines: Iterable[bytes]) -> list[Probe]:
    """Returns the probes, sorted by data set, method, neighbours and step.

    Of several results for the same four, the last is returned. Invalid lines, such as one
    truncated by a crash, are skipped.
    """
    probes: dict[tuple[str, str, int, int], Probe] = {}
    for line in lines:
        record = parse_object(line)
        try:
            if record is None:
                continue
            neighbors = record.get("neighbors")
            probe = Probe(
                str(record["data"]),
                str(record["method"]),
                int(record["step"]),
                float(record["accuracy"]),
                _number(record.get("spread")),
                _number(record.get("baseline")),
                None if neighbors is None else int(neighbors),
            )
            shares = (probe.accuracy, probe.spread or 0.0, probe.baseline or 0.0)
            if probe.step < 0 or not all(0 <= share <= 1 for share in shares):
                continue
        except (ValueError, KeyError, TypeError, OverflowError):
            continue
        probes[probe.data, probe.method, probe.neighbors or 0, probe.step] = probe
    return [probes[key] for key in sorted(probes)]


def _number(value: object) -> float | None:
    return None if value is None else float(value)  # type: ignore[arg-type]
