"""Where a run is, judged from its log and from the names of the files in its URL."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from arlow_trainer.checkpoint.layout import MANIFEST, SAVE_MARK, checkpoint_step

from .faults import Phase

_STEP = re.compile(r"\bstep (\d[\d,]*)/\d")
_RESUMED = re.compile(r"resuming from \S+/checkpoint-(\d+)")
_DONE_BEFORE = re.compile(r"all ([\d,]+) steps were done before")


def phase_of(log: str, names: Iterable[str], complete: int) -> Phase | None:
    """Returns where an attempt is; None where it is between two phases.

    Args:
        log: what the attempt has written so far.
        names: the files in the run's URL, relative to it.
        complete: how many files a whole checkpoint has beside its manifest.
    """
    if "training: " not in log:
        return Phase.LOADING if "loading: " in log else Phase.STARTING
    if re.search(r"\] saving$", log, re.MULTILINE):
        return Phase.ENDING
    folders: dict[int, set[str]] = defaultdict(set)
    for name in names:
        folder, _, file = name.partition("/")
        step = checkpoint_step(folder)
        if step is not None:
            folders[step].add(file)
    committed = max((step for step, files in folders.items() if MANIFEST in files), default=-1)
    unfinished = {step: files for step, files in folders.items() if MANIFEST not in files}
    for step, files in sorted(unfinished.items()):
        if step < committed:
            return Phase.PRUNING
        return Phase.COMMITTING if len(files - {SAVE_MARK}) >= complete else Phase.SAVING
    return Phase.STEPPING if last_step(log) else None


def last_step(log: str) -> int:
    """Returns the last step that a log reports; 0 where there is none."""
    found = _STEP.findall(log)
    return int(found[-1].replace(",", "")) if found else 0


def first_step(log: str) -> int:
    """Returns the first step that a log reports; 0 where there is none."""
    found = _STEP.search(log)
    return int(found.group(1).replace(",", "")) if found else 0


def resumed_at(log: str) -> int | None:
    """Returns the step that an attempt began with; None where it did not come that far."""
    before = _DONE_BEFORE.search(log) or _RESUMED.search(log)
    if before is not None:
        return int(before.group(1).replace(",", ""))
    return 0 if "training: " in log else None
