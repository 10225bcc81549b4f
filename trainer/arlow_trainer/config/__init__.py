"""Configuration of a run. Imports neither torch nor transformers: the operator has neither."""

from arlow_trainer.config.advice import advise, known_set_size, steps_per_epoch, total_steps
from arlow_trainer.config.errors import ArlowError, ConfigError, ExitCode
from arlow_trainer.config.load import load_run, to_yaml, validate
from arlow_trainer.config.models import STORE_SCHEMES, ArlowPretrain, RunSpec
from arlow_trainer.config.status import LastCheckpoint, RunStatus
from arlow_trainer.config.stored import stored_run, training_part, without_cluster
from arlow_trainer.config.training import (
    Compile,
    DataSection,
    MaeSection,
    Modality,
    ModelSection,
    Precision,
    ProbeSection,
    SetSection,
    SourceSection,
    TrainingSection,
)

__all__ = [
    "STORE_SCHEMES",
    "ArlowError",
    "ArlowPretrain",
    "Compile",
    "ConfigError",
    "DataSection",
    "ExitCode",
    "LastCheckpoint",
    "MaeSection",
    "Modality",
    "ModelSection",
    "Precision",
    "ProbeSection",
    "RunSpec",
    "RunStatus",
    "SetSection",
    "SourceSection",
    "TrainingSection",
    "advise",
    "known_set_size",
    "load_run",
    "steps_per_epoch",
    "stored_run",
    "to_yaml",
    "total_steps",
    "training_part",
    "validate",
    "without_cluster",
]
