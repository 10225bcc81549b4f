"""A run in Weights & Biases: where its own environment variables say, or offline.

W&B's history is rows of rising steps: what is of an earlier step goes into the newest row.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from arlow_trainer.trackers.records import PROBE, Outcome, Picture, Record, Scalars, TrackedRun

PROJECT = "arlow-pretrain"
PROBE_STEP = "probe_step"


class WandbRun:
    """One run of W&B for all attempts, by its id."""

    def __init__(self, run: TrackedRun, warn: Callable[[str], None]) -> None:
        """Starts or resumes the run. Raises what W&B raises."""
        import wandb

        self._read, self._image, self._teardown = run.read, wandb.Image, wandb.teardown
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            id=run.id,
            name=run.name,
            resume="allow",
            # Standard output is the process's log and stays as it is; the folder that the command
            # was started in has nothing to do with the run.
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, disable_code=True
            ),
        )
        self._run.config.update({"url": run.url, **run.settings}, allow_val_change=True)
        self._run.define_metric(f"{PROBE}*", step_metric=PROBE_STEP)
        # After what earlier attempts have logged; offline, W&B does not know that.
        self._first_step = self._row = int(self._run.step)

    def write(self, records: Sequence[Record]) -> None:
        """Logs what is not there yet. W&B takes it at once and sends it by itself."""
        new = [record for record in records if record.step >= self._first_step]
        # All pictures are read before anything is logged: a store may fail, and then this repeats.
        for record, values in [(record, self._values(record)) for record in new]:
            # Probes and pictures come later than the scalars of their step: in the newest row.
            self._row = max(self._row, record.step)
            self._run.log(values, step=self._row)

    def end(self, outcome: Outcome) -> None:
        """Finishes the attempt; returns when W&B has sent or written all of it."""
        self._run.finish(exit_code=0 if outcome == "finished" else 1)
        # Offline, its process may write the last rows only when it ends.
        self._teardown()

    def _values(self, record: Record) -> dict[str, Any]:
        match record:
            case Scalars():
                probed = any(name.startswith(PROBE) for name in record.values)
                return {**record.values, **({PROBE_STEP: record.step} if probed else {})}
            case Picture():
                png = self._read(record.key)
                if png is None:
                    return {}
                with Image.open(io.BytesIO(png)) as image:
                    return {record.name: self._image(image, caption=f"step {record.step:,}")}
