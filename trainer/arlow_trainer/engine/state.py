"""The optimiser's state as flat tensors: saved as they are, restored on any rank count.

ZeRO-2 gives each rank one slice of every parameter group's concatenated parameters. A rank saves
its slices as they are, with the list of which parameter's elements lie where; a restore on any
number of ranks picks the elements each rank needs.

DeepSpeed's own `save_checkpoint` writes pickles and refuses another number of ranks, so this module
reads and sets what DeepSpeed 0.19.8 (pinned in pyproject.toml) keeps in `DeepSpeedZeroOptimizer`,
deepspeed/runtime/zero/stage_1_and_2.py. None of it is a public interface; each use says why:

    bit16_groups                        parameters of each group, in the order they are flattened
    parameter._hp_mapping               where a parameter's elements lie in this rank's slice
    single_partition_of_fp32_groups     this rank's float32 slice of each group (the masters)
    optimizer.state                     AdamW's moments, by slice
    optimizer.register_step_pre_hook    called before AdamW changes them
    _hp_optimizer_states_linked         whether parameters refer to their moments
    update_lp_params                    writes the masters to the half-precision weights
    _update_model_bit16_weights         makes the module's parameters views of those weights
    loss_scaler                         cur_scale, cur_iter, last_overflow_iter, cur_hysteresis
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from arlow_trainer.config.errors import StoreError
from arlow_trainer.engine.shard_files import ShardFile, Span

MASTER = "fp32"
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Fragment:
    """Elements of one parameter in a flat slice.

    Attributes:
        name: the parameter's name.
        group: index of the parameter group.
        start: first element in the flattened parameter.
        count: number of elements.
        offset: first element in the rank's flat slice of the group.
    """

    name: str
    group: int
    start: int
    count: int
    offset: int


@dataclass(frozen=True)
class OptimizerShard:
    """A rank's part of the optimiser's state.

    Attributes:
        tensors: `<group>.fp32`, `<group>.exp_avg`, `<group>.exp_avg_sq`, flat float32.
        fragments: what lies where in them.
        adam_step: updates that AdamW has made.
    """

    tensors: dict[str, Tensor]
    fragments: list[Fragment]
    adam_step: int

    def save(self, path: Path) -> None:
        """Writes the shard, which must be on the CPU, as a safetensors file."""
        metadata = {
            "adam_step": str(self.adam_step),
            "fragments": json.dumps([asdict(fragment) for fragment in self.fragments]),
        }
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors.items()}
        save_file(tensors, path, metadata=metadata)


def shard_name(rank: int, ranks: int) -> str:
    """Returns the file of a rank's shard in a checkpoint."""
    return f"optimizer/rank-{rank:05d}-of-{ranks:05d}.safetensors"


def rank_fragments(engine: Any) -> list[Fragment]:
    """Lists which elements of which parameters this rank's slices hold."""
    names = {id(parameter): name for name, parameter in engine.module.named_parameters()}
    fragments = []
    for group, parameters in enumerate(engine.optimizer.bit16_groups):
        for parameter in parameters:
            # None where no element of the parameter lies in this rank's slice.
            mapping = parameter._hp_mapping
            if mapping is not None:
                # "lp": elements of the parameter itself; "hp": where they lie in the float32 slice.
                part, flat = mapping.lp_fragment_address, mapping.hp_fragment_address
                fragments.append(
                    Fragment(names[id(parameter)], group, part.start, part.numel, flat.start)
                )
    return fragments


def optimizer_shard(engine: Any) -> OptimizerShard:
    """Returns this rank's part of the optimiser's state, where it is: each update changes it."""
    optimizer = engine.optimizer
    tensors, step = {}, 0
    for group, flat in enumerate(optimizer.single_partition_of_fp32_groups):
        # AdamW has no state before its first update, and every step so far may have overflowed.
        state = optimizer.optimizer.state.get(flat) or {}
        tensors[f"{group}.{MASTER}"] = flat.detach()
        for moment in MOMENTS:
            value = state.get(moment)
            # One zero for all elements: of the moments' size nothing else is at hand.
            zeros = torch.zeros((), dtype=flat.dtype, device=flat.device).expand_as(flat)
            tensors[f"{group}.{moment}"] = zeros if value is None else value
        step = int(state.get("step", 0))
    return OptimizerShard(tensors, rank_fragments(engine), step)


def before_updates(engine: Any, action: Callable[[], None]) -> RemovableHandle:
    """Has `action` called before weights, masters or moments change; the handle ends that."""
    optimizer: torch.optim.Optimizer = engine.optimizer.optimizer
    return optimizer.register_step_pre_hook(lambda *_: action())


@dataclass(frozen=True)
class RestoredShard:
    """What `read_shards` found for this rank: flat tensors by group, and AdamW's updates."""

    groups: list[dict[str, Tensor]]
    adam_step: int


def read_shards(engine: Any, shards: Iterable[Path]) -> RestoredShard:
    """Collects this rank's elements from the shards of a checkpoint.

    Args:
        engine: the DeepSpeed engine, of the same model on any number of ranks.
        shards: files of the ranks that saved, read one after another.

    Raises:
        StoreError: the shards do not cover a parameter, or one is damaged.
    """
    flats = engine.optimizer.single_partition_of_fp32_groups
    wanted: dict[str, list[Fragment]] = defaultdict(list)
    for fragment in rank_fragments(engine):
        wanted[fragment.name].append(fragment)
    groups = [{key: torch.zeros_like(flat.data) for key in (MASTER, *MOMENTS)} for flat in flats]
    missing = sum(fragment.count for parts in wanted.values() for fragment in parts)
    step = 0
    for path in shards:
        try:
            shard = ShardFile(path)
            step = int(shard.metadata["adam_step"])
            spans: list[Span] = []
            for record in json.loads(shard.metadata["fragments"]):
                saved = Fragment(**record)
                for own in wanted[saved.name]:
                    missing -= _add_overlap(spans, saved, own, groups[own.group])
            shard.read(spans)
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise StoreError(
                f"the optimiser's state in {path.name} is damaged: {error}; remove that checkpoint"
            ) from error
    if missing:
        raise StoreError(
            f"the optimiser's state lacks {missing} elements of this model; it was saved by "
            "another model: start a new run under another name"
        )
    return RestoredShard(groups, step)


def install_shard(engine: Any, restored: RestoredShard) -> None:
    """Sets masters, moments and weights to what `read_shards` read; call on every rank."""
    optimizer = engine.optimizer
    flats = optimizer.single_partition_of_fp32_groups
    for flat, group in zip(flats, restored.groups, strict=True):
        flat.data.copy_(group[MASTER])
        # AdamW keeps its step on the CPU unless it is fused.
        device = flat.device if engine.device.type == "cuda" else torch.device("cpu")
        optimizer.optimizer.state[flat] = {
            "step": torch.tensor(float(restored.adam_step), device=device),
            **{moment: group[moment] for moment in MOMENTS},
        }
    # The moments are other tensors now. DeepSpeed links parameters to them once, at the first step
    # (with several groups even before the state exists), unless this says that it has not yet.
    optimizer._hp_optimizer_states_linked = False
    # Masters to half-precision weights: each rank's slice, then gathered among ranks.
    optimizer.update_lp_params()
    # Points the parameters into the flat weights, as DeepSpeed does after each of its own steps.
    for index in range(len(flats)):
        optimizer._update_model_bit16_weights(index)


def loss_scaler_state(engine: Any) -> dict[str, float]:
    """Returns the dynamic loss scaler's numbers; empty without fp16."""
    if not engine.fp16_enabled():
        return {}
    scaler = engine.optimizer.loss_scaler
    return {key: getattr(scaler, key) for key in SCALER_FIELDS}


def restore_loss_scaler(engine: Any, state: dict[str, float]) -> None:
    """Restores what `loss_scaler_state` returned."""
    if engine.fp16_enabled() and state:
        for key in SCALER_FIELDS:
            setattr(engine.optimizer.loss_scaler, key, state[key])


SCALER_FIELDS = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


def _add_overlap(
    spans: list[Span], saved: Fragment, own: Fragment, target: dict[str, Tensor]
) -> int:
    """Adds what a saved and an own fragment share to what is read; returns its elements."""
    first = max(saved.start, own.start)
    count = min(saved.start + saved.count, own.start + own.count) - first
    if count <= 0:
        return 0
    source, destination = saved.offset + first - saved.start, own.offset + first - own.start
    for key, flat in target.items():
        spans.append(Span(f"{saved.group}.{key}", source, flat[destination : destination + count]))
    return count
