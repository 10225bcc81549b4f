"""What is counted and not timed: sizes of micro-batches, operations, bytes moved, locked memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from arlow_trainer.checkpoint.copies import layout
from arlow_trainer.config import ArlowPretrain, Modality
from arlow_trainer.data import choose, deal, token_costs
from arlow_trainer.engine import Ranks, StepRunner, build_autoencoder, initialize_engine
from arlow_trainer.engine.parameters import parameter_groups
from arlow_trainer.plan.choice import choose_micro_batch
from arlow_trainer.plan.hardware import HARDWARE
from arlow_trainer.plan.micro_batches import Sizes, micro_batch_sizes

from .ranks import on_ranks
from .result import Result
from .samples import build_run, micro_batch
from .traffic import CLIPS, IMAGES, META, step_traffic

SET_SIZES: Mapping[Modality, int] = {"image": 1_281_167, "video": 9_537}
GPU = "h200"
TRAFFIC_OF = "arlow-vision-3072"
# Bytes and kernels that `traffic` counted of the step before its passes were joined, on 28 November
# 2026.
BEFORE = (150.3e9, 5_603)


@dataclass(frozen=True)
class Size:
    """What is counted: a preset on 1 and on 8 ranks, and how many of its first steps are dealt."""

    preset: str = "arlow-vision-3072"
    steps: int = 600


FULL = Size()
TOY = Size("tiny", 5)


class Operations(TorchDispatchMode):
    """Counts operations that are more than another view of a tensor: on a GPU, kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        self.number += not function.is_view
        return function(*arguments, **(keywords or {}))


def measure(size: Size, progress: Callable[[str], None]) -> Result:
    """Counts all, as it was without each change and as it is."""
    run = build_run(size.preset, {})
    rows = []
    for ranks in (1, 8):
        progress(f"the micro-batches of {size.steps} steps on {ranks} ranks")
        before, now = _sizes(run, ranks, size.steps)
        rows.append((f"sizes of micro-batches, rank 0 of {ranks}", str(before), str(now)))
    progress("memory that saves lock")
    for ranks in (1, 8):
        before, now = _locked(run, ranks)
        rows.append(
            (
                f"page-locked for a save, all of {ranks} ranks",
                f"{before / 1e9:.1f} GB",
                f"{now / 1e9:.1f} GB",
            )
        )
    progress("bytes that a rank's step moves")
    traffic = step_traffic(build_run(TRAFFIC_OF, {}).spec.training)
    of_step = f"a rank's step of {IMAGES} images and {CLIPS} clips"
    now = traffic.bytes.total()
    rows.append(
        (
            f"bytes moved beside products, {of_step}",
            f"{BEFORE[0] / 1e9:.1f} GB",
            f"{now / 1e9:.1f} GB",
        )
    )
    rows.append((f"kernels of {of_step}", f"{BEFORE[1]:,}", f"{traffic.launches.total():,}"))
    progress("operations of an update")
    tensors, before, now = on_ranks(1, _operations)
    rows.append(
        (f"operations of an update, {tensors} tensors, one rank", f"{before:,}", f"{now:,}")
    )
    return Result(
        "Counts",
        f"Of `{size.preset}`: sizes of micro-batches in its first {size.steps} steps, each in its "
        f"own size, against those that a run is held to on an {GPU}; memory for a save that "
        "torch's pinned allocator would take, a power of two for each tensor, against the one "
        "buffer. Of `tiny` in fp16: operations of an update that looks for overflows in every "
        "gradient and in their norm, against the norm alone. "
        f"Of `{TRAFFIC_OF}` in fp16, forward and backward on meta tensors: kernels, and what those "
        "read and write that are no matrix product and no attention.",
        ("count", "without", "as it is"),
        rows,
        [
            "Waits for the device and communicators are counted by "
            "`tests/engine/test_engine_waits.py`: one wait a step (5 before, with 4 micro-batches) "
            "and one communicator on the device (2 before).",
        ],
    )


def _sizes(run: ArlowPretrain, ranks: int, steps: int) -> tuple[int, int]:
    """Returns how many sizes rank 0 computes of both modalities, unbounded and as it is."""
    training, batch = run.spec.training, run.spec.global_batch_size
    costs = token_costs(training.data, training.model)
    hardware = HARDWARE[GPU]
    choice = choose_micro_batch(run, ranks, hardware.memory_bytes, hardware)
    of_run = micro_batch_sizes(training, batch, ranks, choice.images)
    whole: dict[Modality, Sizes] = {"image": Sizes((batch,)), "video": Sizes((batch,))}
    before: set[tuple[Modality, int]] = set()
    now: set[tuple[Modality, int]] = set()
    for step in range(steps):
        choices = [
            choose(training.seed, step * batch + i, SET_SIZES, training.data.video_probability)
            for i in range(batch)
        ]
        for plan in deal(choices, costs, ranks, whole)[0]:
            before.add((plan[0].modality, len(plan)))
        for plan in deal(choices, costs, ranks, of_run)[0]:
            modality = plan[0].modality
            now.add((modality, of_run[modality].holding(len(plan))))
    return len(before), len(now)


def _locked(run: ArlowPretrain, ranks: int) -> tuple[int, int]:
    """Returns the bytes that all ranks lock for a save: a power of two a tensor, and a buffer."""
    module = build_autoencoder(run.spec.training, META)
    half = {name: value.half() for name, value in module.state_dict().items()}
    sizes = [
        sum(parameter.numel() for parameter in group["params"])
        for group in parameter_groups(module, 0.0)
    ]
    shard = {
        f"{group}.{key}": torch.empty(-(-size // ranks), device=META)
        for group, size in enumerate(sizes)
        for key in ("fp32", "exp_avg", "exp_avg_sq")
    }
    saved: Sequence[Mapping[str, torch.Tensor]] = [half | shard, *[shard] * (ranks - 1)]
    before = sum(1 << (value.nbytes - 1).bit_length() for of in saved for value in of.values())
    return before, sum(layout(of)[1] for of in saved)


def _operations(ranks: Ranks) -> tuple[int, int, int]:
    """Returns the tensors of a model, and an update's operations, without and with our change."""
    run = build_run("tiny", {"batch": {"globalSize": 2}})
    training = run.spec.training
    module = build_autoencoder(training)
    from deepspeed.accelerator import get_accelerator

    # A CPU says that it has none; for what is counted here it has.
    type(get_accelerator()).is_fp16_supported = lambda self: True
    engine = initialize_engine(module, training, "fp16", ranks.device)
    runner = StepRunner(engine, training, 2, total_steps=1000)
    update, batches = engine.step, [micro_batch(run, 2)]

    def counted(step: int) -> int:
        operations = Operations()

        def counting() -> None:
            with operations:
                update()

        engine.step = counting
        runner.step(step, batches)
        return operations.number

    counted(0)  # makes AdamW's state
    now = counted(1)
    engine.optimizer.check_grad_overflow = True
    before = counted(2)
    return len(list(module.parameters())), before, now
