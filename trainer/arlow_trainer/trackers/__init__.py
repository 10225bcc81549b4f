"""Experiment trackers: a run's scalars and pictures in TensorBoard's files, MLflow and W&B."""

from arlow_trainer.trackers.records import Outcome, Picture, Record, Scalars, TrackedRun, Tracker
from arlow_trainer.trackers.trackers import Trackers

__all__ = ["Outcome", "Picture", "Record", "Scalars", "TrackedRun", "Tracker", "Trackers"]
