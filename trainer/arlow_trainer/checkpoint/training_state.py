"""The state of a run that a checkpoint holds in addition to the tensors, for an exact resume."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from arlow_trainer.checkpoint.reader import Damaged
from arlow_trainer.config import ArlowPretrain, stored_run, training_part, without_cluster
from arlow_trainer.config.errors import ArlowError, ConfigError, StoreError
from arlow_trainer.config.shown_text import printable, redact_tree
from arlow_trainer.storage.json_text import parse_json

TRAINING_STATE = "training_state.json"

# Fields of spec.training that change what the saved tensors or the data's order mean.
_IDENTITY = (
    "model",
    "mae",
    "seed",
    "data.video_probability",
    "data.image_size",
    "data.clip_frames",
    "data.frame_stride",
    "data.min_crop_scale",
    "data.flip",
)
_DUMP: dict[str, Any] = {"mode": "json", "by_alias": True}


# Ends of the types of pydantic's errors for a value of the wrong kind.
_WRONG_KIND = ("_type", "_parsing", "_parsing_size", "_from_float", "than_equal")


Count = Annotated[int, Field(ge=0)]


_REMEDY = ". Use another checkpoint (`arlow checkpoints ls`)."


class OtherVersion(StoreError):
    """A state was saved by another version of Arlow, and this one cannot read it."""


@dataclass
class Progress:
    """How far a run is: saved in every checkpoint, restored from it, and reported, as one thing.

    Attributes:
        step: optimisation steps done.
        loss: mean loss of the last read-out; None before the first.
        overflows: steps that changed nothing because their gradients were not finite.
        skipped_files: each broken file that was skipped since the run's first step, and why.
    """

    step: int = 0
    loss: float | None = None
    overflows: int = 0
    skipped_files: dict[str, str] = field(default_factory=dict)


class TrainingState(BaseModel):
    """State of a run after `step` optimisation steps.

    The data's whole state is `next_sample`, the global index of the first sample not yet seen; all
    random choices follow from it, `seed` and `set_sizes` (samples of each set, by modality).
    `loss_scaler` is empty without fp16; `loss`, `overflows` and `skipped_files` are those of
    `Progress`; `run` is `training_part` of the manifest. `fingerprints`, by modality, are those of
    `data.fingerprint`; there are none in checkpoints of earlier versions.
    """

    model_config = ConfigDict(extra="forbid")

    step: Count
    next_sample: Count
    seed: int
    ranks: Count
    total_steps: Count
    set_sizes: dict[str, int]
    fingerprints: dict[str, dict[str, str]] = {}
    precision: str
    loss: float | None
    loss_scaler: dict[str, float]
    overflows: int
    skipped_files: dict[str, str]
    run: dict[str, Any]

    @classmethod
    def start(
        cls,
        run: ArlowPretrain,
        *,
        ranks: int,
        total_steps: int,
        set_sizes: Mapping[str, int],
        precision: str,
        fingerprints: Mapping[str, Mapping[str, str]] | None = None,
    ) -> TrainingState:
        """Returns the state of a run before its first step.

        Raises ArlowError for a run that could not be read back.
        """
        state = cls(
            step=0,
            next_sample=0,
            seed=run.spec.training.seed,
            ranks=ranks,
            total_steps=total_steps,
            set_sizes=dict(set_sizes),
            fingerprints={key: dict(value) for key, value in (fingerprints or {}).items()},
            precision=precision,
            loss=None,
            loss_scaler={},
            overflows=0,
            skipped_files={},
            run=training_part(run),
        )
        # Before a step is done that could not be saved.
        state.to_bytes()
        return state

    def after(
        self, progress: Progress, global_batch_size: int, loss_scaler: Mapping[str, float]
    ) -> TrainingState:
        """Returns the state of the same run after `progress.step` steps."""
        changed = {
            **asdict(progress),
            "next_sample": progress.step * global_batch_size,
            "loss_scaler": dict(loss_scaler),
        }
        return self.model_copy(update=changed)

    @property
    def progress(self) -> Progress:
        """The run's progress at this state."""
        return Progress(self.step, self.loss, self.overflows, dict(self.skipped_files))

    def to_bytes(self) -> bytes:
        """The state as it is stored.

        Raises ArlowError where `from_bytes` would not read it: such a checkpoint would end the run
        that resumes from it, long after its tensors could have been saved otherwise.
        """
        data = (self.model_dump_json(indent=1) + "\n").encode()
        try:
            type(self).from_bytes(data, TRAINING_STATE)
        except StoreError as error:
            raise ArlowError(f"this run cannot be saved so that it is read back: {error}") from None
        return data

    @classmethod
    def from_bytes(cls, data: bytes, url: str) -> TrainingState:
        """Reads what `to_bytes` wrote; `url` names it in messages. Raises Damaged and
        OtherVersion, both StoreError.

        Without what only a cluster uses, which earlier versions saved, and without credentials in
        URLs, which they accepted.
        """
        try:
            state = cls.model_validate(parse_json(data))
        except ValidationError as error:
            raise _refusal(error, url) from None
        except ValueError as error:
            raise _damaged(url, str(error)) from None
        clean = {"run": without_cluster(state.run), "skipped_files": state.skipped_files}
        return state.model_copy(update=redact_tree(clean))


def check_same_run(
    state: TrainingState, run: ArlowPretrain, set_sizes: Mapping[str, int], url: str
) -> None:
    """Refuses to continue a run whose saved tensors or data order are no longer described.

    Raises ConfigError with one line for every field, and every set's size, that differs, and
    StoreError where the saved run is one of another version of Arlow.
    """
    saved = saved_run(state, url)
    lines = []
    for path in _IDENTITY:
        before = _dump(_at(saved.spec.training, path))
        now = _dump(_at(run.spec.training, path))
        lines += [
            f"spec.training.{_camel(path)}{key}: {old} in {url}, {new} in this file"
            for key, old, new in _differences(before, now)
        ]
    if saved.spec.global_batch_size != run.spec.global_batch_size:
        lines.append(
            f"spec.training.batch.globalSize: {saved.spec.global_batch_size} in {url}, "
            f"{run.spec.global_batch_size} in this file"
        )
    lines += [
        f"spec.training.data.{modality}s: {state.set_sizes.get(modality, 0):,} samples in {url}, "
        f"{size:,} now, so their order is different"
        for modality, size in set_sizes.items()
        if state.set_sizes.get(modality) != size
    ]
    if lines:
        lines.append("set them back to continue that run, or start another: metadata.name")
        raise ConfigError("\n".join(lines))


def with_saved_batch(run: ArlowPretrain, state: TrainingState, url: str) -> ArlowPretrain:
    """Returns the run with the global batch of its checkpoint, unless the file sets one.

    `globalSize: 0` is taken from the nodes when a run starts, and kept on other ones. Raises
    StoreError where the saved run is one of another version of Arlow.
    """
    if run.spec.training.batch.global_size:
        return run
    size = saved_run(state, url).spec.global_batch_size
    batch = run.spec.training.batch.model_copy(update={"global_size": size})
    training = run.spec.training.model_copy(update={"batch": batch})
    spec = run.spec.model_copy(update={"training": training})
    return run.model_copy(update={"spec": spec})


def changed_settings(state: TrainingState, run: ArlowPretrain) -> list[str]:
    """Returns a line for every field of spec.training that differs from the saved run's.

    Call after `check_same_run`: those that may not differ do not.
    """
    before = _flat(stored_run(state.run).spec.training.model_dump(**_DUMP))
    now = _flat(run.spec.training.model_dump(**_DUMP))
    return [
        f"spec.training.{path}: {json.dumps(before.get(path))} -> {json.dumps(now.get(path))}"
        for path in dict.fromkeys((*now, *before))
        if before.get(path) != now.get(path)
    ]


def changed_data(state: TrainingState, fingerprints: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Returns a line for every set whose files are not what they were at the checkpoint.

    Its size is the same: `check_same_run` refuses another one.
    """
    lines = []
    for modality, now in fingerprints.items():
        before = state.fingerprints.get(modality, {})
        changed = [what for what, digest in now.items() if before.get(what, digest) != digest]
        if changed:
            lines.append(
                f"spec.training.data.{modality}s: the {' and '.join(changed)} of its files are not "
                f"those of step {state.step:,}, though their number is. If their content changed, "
                "the run continues with other samples: restore the set, or start another run by "
                "metadata.name"
            )
    return lines


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {path: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{path}.{key}" if path else key)
    return flat


def saved_run(state: TrainingState, url: str) -> ArlowPretrain:
    """Returns the run that saved a state; `url` names it in messages.

    Raises Damaged and OtherVersion, both StoreError.
    """
    try:
        return stored_run(state.run)
    except ValidationError as error:
        raise _refusal(error, url) from None


def _refusal(error: ValidationError, url: str) -> StoreError:
    """Returns the error to raise for a state that does not validate.

    Fields that are missing, unknown, null or not allowed are those of another version of Arlow, a
    value of the wrong kind is damage.
    """
    found = error.errors(include_url=False)
    damage = [e for e in found if e["type"].endswith(_WRONG_KIND) and e["input"] is not None]
    first = (damage or found)[0]
    where = ".".join(str(part) for part in first["loc"])
    what = f"{printable(where)}: {first['msg']}" if where else first["msg"]
    if damage:
        return _damaged(url, what)
    return OtherVersion(
        f"{url}: {what}; it was written by another version of Arlow: use that version"
    )


def _damaged(url: str, what: str) -> Damaged:
    return Damaged(f"{url} is damaged: {what}{_REMEDY}")


def damage_of(error: StoreError, url: str) -> str:
    """Returns what is wrong with the state at `url`, without its URL and the remedy."""
    return str(error).removeprefix(f"{url} ").removesuffix(_REMEDY)


def _at(section: Any, path: str) -> Any:
    for name in path.split("."):
        section = getattr(section, name)
    return section


def _camel(path: str) -> str:
    return ".".join(to_camel(name) for name in path.split("."))


def _dump(value: Any) -> Any:
    return value.model_dump(mode="json", by_alias=True) if isinstance(value, BaseModel) else value


def _differences(before: Any, now: Any) -> list[tuple[str, str, str]]:
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            (f".{key}", json.dumps(before.get(key)), json.dumps(now.get(key)))
            for key in now
            if before.get(key) != now.get(key)
        ]
    return [] if before == now else [("", json.dumps(before), json.dumps(now))]
