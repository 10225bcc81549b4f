"""Whether a checkpoint's files hold what a run can be resumed and exported from.

The manifest says that a file is as it was written; these checks say that what was written is a
checkpoint. A folder from somewhere else may hold anything, under a manifest that fits it. Nothing
here allocates more than a file's header.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

from arlow_trainer.checkpoint.export import DECODER, TOWER, WEIGHTS
from arlow_trainer.checkpoint.layout import MANIFEST, Manifest, checkpoint_name
from arlow_trainer.checkpoint.reader import (
    CheckpointInfo,
    Damaged,
    Problem,
    list_checkpoints,
    read_manifest,
)
from arlow_trainer.checkpoint.training_state import (
    TRAINING_STATE,
    OtherVersion,
    TrainingState,
    damage_of,
    saved_run,
)
from arlow_trainer.config import ArlowPretrain
from arlow_trainer.engine import MASTER, MOMENTS, SCALER_FIELDS, Fragment, shard_name
from arlow_trainer.plan.parameters import decoder_parameters, tower_parameters
from arlow_trainer.storage.errors import MissingObject, OversizedObject
from arlow_trainer.storage.json_text import parse_json
from arlow_trainer.storage.store import Store

MAX_HEADER_BYTES = 64 * 2**20
_OPTIMIZER = "optimizer/"
_LENGTH_BYTES = 8
_WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Bytes of a number of the types that towers and optimiser states are saved in."""


def content_problems(store: Store, step: int) -> list[Problem]:
    """Returns the files of a checkpoint that no run can be resumed from; reads little of each.

    A state that another version of Arlow wrote is no damage: who reads it says so. Raises
    StoreError when there is no such checkpoint or the store cannot be read.
    """
    try:
        manifest = read_manifest(store, step)
    except Damaged as error:
        return [Problem(MANIFEST, str(error))]
    return list(_problems(store, manifest))


def list_readable(store: Store) -> list[CheckpointInfo]:
    """Returns every checkpoint folder in ascending order of steps, as `list_checkpoints`.

    Those whose contents are damaged are not valid, and their reason says what is.
    """
    found = list_checkpoints(store)
    for index, info in enumerate(found):
        if info.valid and (problems := content_problems(store, info.step)):
            found[index] = replace(info, valid=False, reason=str(problems[0]))
    return found


def check_contents(store: Store, step: int, names: Collection[str]) -> int:
    """Returns the step if nothing is wrong with these files of its checkpoint.

    Raises StoreError, naming the first file that is damaged, or as `content_problems` does.
    """
    for problem in content_problems(store, step):
        if problem.file in (MANIFEST, *names):
            raise Damaged(
                f"{store.url_of(checkpoint_name(step))}/{problem}. Use another checkpoint "
                "(`arlow checkpoints ls`)."
            )
    return step


def _problems(store: Store, manifest: Manifest) -> Iterator[Problem]:
    folder = checkpoint_name(manifest.step)
    key = f"{folder}/{TRAINING_STATE}"
    uri = store.url_of(key)
    if TRAINING_STATE not in manifest.files:
        yield Problem(TRAINING_STATE, "is not in the manifest")
        return
    try:
        state = TrainingState.from_bytes(store.read_bytes(key), uri)
        run = saved_run(state, uri)
    except OtherVersion:
        return
    except MissingObject:
        yield Problem(TRAINING_STATE, "is missing")
        return
    except (Damaged, OversizedObject) as error:
        yield Problem(TRAINING_STATE, damage_of(error, uri))
        return
    shards = {name for name in manifest.files if name.startswith(_OPTIMIZER)}
    if state.step != manifest.step:
        yield Problem(TRAINING_STATE, f"is the state of step {state.step:,}")
    if state.loss_scaler and set(state.loss_scaler) != set(SCALER_FIELDS):
        yield Problem(TRAINING_STATE, "lacks some of the loss scaler's numbers")
    # Counted first: a state may claim any number of ranks.
    if len(shards) != state.ranks or shards != {
        shard_name(rank, state.ranks) for rank in range(len(shards))
    }:
        yield Problem(
            TRAINING_STATE,
            f"says {state.ranks:,} ranks, and the checkpoint has {len(shards):,} files of "
            "optimiser state that are not one for each",
        )
        return
    expected = _parameters(run)
    for name in (f"{TOWER}/{WEIGHTS}", f"{DECODER}/{WEIGHTS}", *sorted(shards)):
        try:
            record = manifest.files.get(name)
            if record is None:
                raise ValueError("is missing")
            tensors, metadata = read_header(store, f"{folder}/{name}", record.size)
            if name in shards:
                _check_shard(tensors, metadata)
            else:
                _check_count(tensors, expected[name])
        except ValueError as error:
            yield Problem(name, str(error))


def read_header(
    store: Store, key: str, size: int
) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Returns the shapes of a safetensors file's tensors, and its metadata; reads only its header.

    Args:
        store: the run's store.
        key: the file's key.
        size: its bytes.

    Raises:
        ValueError: it is no such file, or its tensors do not fill it exactly.
        StoreError: the store cannot be read.
    """
    if size < _LENGTH_BYTES:
        raise ValueError(f"is no safetensors file: it has {size} bytes")
    length = int.from_bytes(store.read_range(key, 0, _LENGTH_BYTES), "little")
    if length > min(size - _LENGTH_BYTES, MAX_HEADER_BYTES):
        raise ValueError(f"is no safetensors file: its header would have {length:,} bytes")
    try:
        header = parse_json(store.read_range(key, _LENGTH_BYTES, _LENGTH_BYTES + length))
    except ValueError as error:
        raise ValueError(f"is no safetensors file: of its header, {error}") from None
    if not isinstance(header, dict):
        raise ValueError("is no safetensors file: its header is no JSON object")
    metadata = header.pop("__metadata__", None) or {}
    spans = sorted(_span(name, entry) for name, entry in header.items())
    end = 0
    for first, last, name in spans:
        if first != end:
            raise ValueError(f"is damaged: tensor {name!r} begins at {first}, not at {end}")
        end = last
    if end != size - _LENGTH_BYTES - length:
        raise ValueError(f"is damaged: its tensors end at {end}, and the file does not")
    shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
    return shapes, metadata if isinstance(metadata, dict) else {}


def _span(name: str, entry: Any) -> tuple[int, int, str]:
    """Returns first and last byte of a tensor, and its name. Raises ValueError."""
    try:
        shape, (first, last), width = entry["shape"], entry["data_offsets"], _WIDTHS[entry["dtype"]]
        sound = 0 <= first <= last and all(type(n) is int and n >= 0 for n in (first, last, *shape))
        if sound and math.prod(shape) * width == last - first:
            return first, last, name
    except (KeyError, TypeError, ValueError):
        pass
    raise ValueError(f"is damaged: the entry of tensor {name!r} in its header")


def _check_count(tensors: dict[str, tuple[int, ...]], expected: int) -> None:
    found = sum(map(math.prod, tensors.values()))
    if found != expected:
        raise ValueError(
            f"holds {found:,} parameters, and the model that {TRAINING_STATE} describes has "
            f"{expected:,}"
        )


def _check_shard(tensors: dict[str, tuple[int, ...]], metadata: dict[str, str]) -> None:
    """Raises ValueError unless every fragment lies in the tensors of its group."""
    try:
        int(metadata["adam_step"])
        fragments = [Fragment(**record) for record in parse_json(metadata["fragments"])]
        for part in fragments:
            sizes = {tensors[f"{part.group}.{name}"] for name in (MASTER, *MOMENTS)}
            [(size,)] = sizes
            if min(part.start, part.count, part.offset) < 0 or part.offset + part.count > size:
                raise ValueError
    except (KeyError, TypeError, ValueError):
        raise ValueError("is damaged: what it says of its parameters is wrong") from None


def _parameters(run: ArlowPretrain) -> dict[str, int]:
    """Returns how many parameters the run's tower and decoder have, by their files."""
    training = run.spec.training
    try:
        tower = tower_parameters(training.model)
    except OverflowError:  # an mlpRatio of 1e300
        tower = -1
    return {
        f"{TOWER}/{WEIGHTS}": tower,
        f"{DECODER}/{WEIGHTS}": decoder_parameters(training.model, training.mae),
    }
