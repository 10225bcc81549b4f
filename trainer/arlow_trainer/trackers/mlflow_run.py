"""A run in MLflow, where `MLFLOW_TRACKING_URI` says: metrics, parameters and images.

MLflow keeps every value that it is given. A tag of the MLflow run says up to which step each number
is there, so that steps that an attempt does again are not there twice.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from PIL import Image

from arlow_trainer.trackers.records import (
    Outcome,
    Picture,
    Record,
    Scalars,
    TrackedRun,
    flat_settings,
)

EXPERIMENT = "arlow-pretrain"
ID_TAG, URL_TAG, STEPS_TAG = "arlow.run_id", "arlow.url", "arlow.last_steps"
# What a request may hold, and a parameter (MLflow's REST API, Log Batch).
MAX_METRICS, MAX_PARAMS, MAX_PARAM_LENGTH = 900, 100, 6_000

_STATUS: dict[Outcome, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MlflowRun:
    """One run of MLflow for all attempts, found by its tag."""

    def __init__(self, run: TrackedRun, warn: Callable[[str], None]) -> None:
        """Finds the run or creates it. Raises what MLflow raises."""
        import mlflow
        from mlflow.entities import Metric, Param, RunTag

        self._read, self._warn = run.read, warn
        self._metric, self._param, self._tag = Metric, Param, RunTag
        self._client = mlflow.MlflowClient()
        found = self._found_or_created(run)
        self._id: str = found.info.run_id
        steps = json.loads(found.data.tags.get(STEPS_TAG, "{}"))
        self._steps: dict[str, int] = {str(name): int(step) for name, step in steps.items()}
        self._client.update_run(self._id, status="RUNNING")
        self._log_settings(run, known=found.data.params)

    def write(self, records: Sequence[Record]) -> None:
        """Logs what is not there yet. Raises what MLflow raises, but for a picture."""
        new = self._new_metrics(record for record in records if isinstance(record, Scalars))
        while metrics := list(islice(new, MAX_METRICS)):
            steps = self._steps | {metric.key: metric.step for metric in metrics}
            tag = self._tag(STEPS_TAG, json.dumps(steps))
            self._client.log_batch(self._id, metrics=metrics, tags=[tag])
            self._steps = steps
        for record in records:
            if isinstance(record, Picture) and record.step > self._steps.get(record.name, -1):
                self._log_picture(record)

    def end(self, outcome: Outcome) -> None:
        """Sets the run's status."""
        self._client.set_terminated(self._id, _STATUS[outcome])

    def _found_or_created(self, run: TrackedRun) -> Any:
        experiment = self._experiment()
        found = self._client.search_runs([experiment], f"tags.`{ID_TAG}` = '{run.id}'")
        if found:
            return found[0]
        tags = {ID_TAG: run.id, URL_TAG: run.url}
        return self._client.create_run(experiment, tags=tags, run_name=run.name)

    def _experiment(self) -> str:
        """Returns the experiment's id: that of MLflow's own variables, else of our name."""
        if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return given
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = self._client.get_experiment_by_name(name)
        return str(self._client.create_experiment(name) if found is None else found.experiment_id)

    def _log_settings(self, run: TrackedRun, known: dict[str, str]) -> None:
        # A parameter never changes in MLflow: what a later attempt has otherwise is not logged.
        new = iter(
            self._param(name, _text(value)[:MAX_PARAM_LENGTH])
            for name, value in flat_settings(run.settings).items()
            if name not in known
        )
        while params := list(islice(new, MAX_PARAMS)):
            self._client.log_batch(self._id, params=params)

    def _new_metrics(self, points: Iterator[Scalars]) -> Iterator[Any]:
        for point in points:
            for name, value in point.values.items():
                if point.step > self._steps.get(name, -1):
                    yield self._metric(name, value, round(point.time * 1000), point.step)

    def _log_picture(self, picture: Picture) -> None:
        try:
            png = self._read(picture.key)
            if png is not None:
                with Image.open(io.BytesIO(png)) as image:
                    self._client.log_image(
                        self._id,
                        image,
                        key=picture.name,
                        step=picture.step,
                        timestamp=round(picture.time * 1000),
                    )
        except Exception as error:
            # Its artifacts may lie where this process must not write: scalars go on.
            self._warn(f"{picture.key} is left out: {error}")
        self._steps[picture.name] = picture.step


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
