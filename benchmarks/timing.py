"""Times taken side by side, so that a noisy machine disturbs all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

Work = Callable[[], object]
Clock = Callable[[], float]

WALL: Clock = time.perf_counter
CPU: Clock = time.process_time
"""All threads of this process together. For one busy thread it is what wall time would be on a
machine without neighbours."""


@dataclass(frozen=True)
class Times:
    """Seconds of several pieces of work, each measured once a round."""

    seconds: Mapping[str, list[float]]

    def typical(self, name: str) -> float:
        """Returns the median over the rounds."""
        return median(self.seconds[name])

    def least(self, name: str) -> float:
        """Returns the fastest round."""
        return min(self.seconds[name])

    def ratios(self, name: str, to: str) -> list[float]:
        """Returns every round's own ratio."""
        pairs = zip(self.seconds[name], self.seconds[to], strict=True)
        return [one / other for one, other in pairs]

    def ratio(self, name: str, to: str) -> float:
        """Returns the median of the rounds' own ratios."""
        return median(self.ratios(name, to))

    def least_ratio(self, name: str, to: str) -> float:
        """Returns the ratio of the fastest rounds."""
        return self.least(name) / self.least(to)


def side_by_side(
    work: Mapping[str, Work],
    rounds: int,
    clocks: tuple[Clock, ...],
    progress: Callable[[str], None] = lambda words: None,
) -> tuple[Times, ...]:
    """Runs every piece of work once to warm up, then in turn, `rounds` times.

    Returns:
        Its times by each of the clocks.
    """
    for run in work.values():
        run()
    taken: list[dict[str, list[float]]] = [{name: [] for name in work} for _ in clocks]
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}")
        for name, run in work.items():
            starts = [clock() for clock in clocks]
            run()
            for clock, start, seconds in zip(clocks, starts, taken, strict=True):
                seconds[name].append(clock() - start)
    return tuple(Times(seconds) for seconds in taken)


def joined(runs: Sequence[Times]) -> Times:
    """Returns the rounds of several runs of the same work as one."""
    return Times({name: [s for run in runs for s in run.seconds[name]] for name in runs[0].seconds})
