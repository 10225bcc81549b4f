"""The probe results that a run leaves in its store."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

PROBE_FILE = "probe.jsonl"


@dataclass(frozen=True)
class Probe:
    """Accuracy of a probe (0 to 1) after a step, its standard deviation over seeds, and the
    accuracy that random weights reach. `neighbors` is the k of k-NN, None where it is not known.
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
        """The method, with its k where it has one."""
        return self.method if self.neighbors is None else f"{self.method}, k={self.neighbors}"


def read_probes(lines: Iterable[bytes]) -> list[Probe]:
    """Returns the probes by data set, method, neighbours and step; of one repeated, the last.

    Lines that are none, such as one cut short by a crash, are left out.
    """
    probes: dict[tuple[str, str, int, int], Probe] = {}
    for text in lines:
        try:
            record = json.loads(text)
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
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        probes[probe.data, probe.method, probe.neighbors or 0, probe.step] = probe
    return [probes[key] for key in sorted(probes)]


def _number(value: object) -> float | None:
    return None if value is None else float(value)  # type: ignore[arg-type]
