"""Writes docs/planning.md: `python -m arlow_trainer.plan.reference FILE`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from arlow_trainer.config import load_run
from arlow_trainer.plan.hardware import HARDWARE
from arlow_trainer.plan.run_plan import DevicePlan, Unfit, plan_run
from arlow_trainer.plan.show import Table, as_markdown, comparison, device_table, run_table

SHOWN = ("rtx-8000", "h100")
LINKED = ("rtx-8000", "a100-80gb-pcie", "a100-80gb", "h100")

INTRODUCTION = """\
# What a run takes

<!-- Written by `make docs` from arlow_trainer/plan; edit the texts there. -->

`arlow plan FILE` says before a run is started what it will hold, compute, move and take: on the
nodes that `spec.nodes` declares, with every GPU of the hardware table (`plan/hardware.py`). With
`--json` it prints all that it knows. It opens no data and no store. `arlow train` chooses its
micro-batch by the same code, from the memory that the device has.

Memory is counted, and agrees with what an H200 was seen to hold within 3 %. Time was fitted to one
H200, where a step of 192 images and 64 clips took 1.65 s with a wait for data of 0.2 s; what
several GPUs add, and all of the other chips, is estimated from data sheets. Samples are taken to be
ImageNet's and UCF101's files; the store of checkpoints is taken to be a local disk that reads
2 GB/s and writes 0.65 GB/s. A node has 8 cores for each GPU where `spec.nodes.cpu` does not say it.

The start is an estimate from its parts: imports as they were on the H200's machine (13 to 16 s),
beside them the checkpoint read from the disk and hashed, one thread a file (1.7 GB/s); its
optimiser state read again, from memory; DeepSpeed's set-up and the first step's kernels 12 s.
`make bench-gpu` measures it, and the `started` event of every run tells it. A first start restores
nothing and [compiles](#compiled-blocks) instead, on GPUs whose blocks are compiled.

A micro-batch is as large as pays on the chip, as fits, and as a device's share of a step. How many
images and clips a device gets differs from step to step, so micro-batches are computed in at most
four sizes a modality, and filled up with samples that do not count.

## The default run on 8 GPUs

`arlow plan manifests/pretrain.yaml`:
"""

OVERLAP = """
## What reducing beside the backward pass saves

Gradients are reduced once a step, beside the backward pass of its last micro-batch, in buckets of
100 M elements: each as soon as the pass has filled it and the bus is free. What is left when the
pass ends takes time of its own. New weights are gathered after the update, beside nothing: the next
forward pass needs the first of them at once. This is arithmetic on 8 GPUs of a node; only several
GPUs can measure it, and how much the bus and the kernels that reduce slow the pass down.
"""

COMPILED = """
## Compiled blocks

`training.compile: auto`, the default, compiles the blocks of tower and decoder with `torch.compile`
on GPUs from Ampere on (compute capability 8.0), and runs them plain elsewhere:

- **Turing and Volta are plain.** Triton, in which inductor writes kernels, supports 8.0 and newer.
  Inductor accepts 7.0, and single kernels have been seen to compile on 7.5; nobody tests it, and a
  run of weeks on an RTX 8000 is no place to find out. `always` tries it there.
- **CPUs are plain**; `always` compiles there too, with a C++ compiler, for tests.
- **Where compiling fails** (no Triton, no C compiler, a kernel that does not build or start), a
  warning says why, the step is done again with plain blocks on all ranks, and the run goes on so.

The log says which it is when training begins. All blocks of a kind share one compiled function: a
run compiles two kinds of block, forward and backward, for each of its sizes of micro-batch (at most
four a modality, and what halving makes of them), whatever the depth. On an H200 a shape takes 5 to
14 s.

A process of each rank compiles all of them while the rank starts: it opens the data, builds the
model and reads its checkpoint meanwhile, and waits before its first step ("waiting for the blocks
to be compiled" in the log, `compile` in the `started` event). Ranks on CPUs, whose code is the
same, share one process. It is another 4 GB of the node's memory for each rank, as much as a rank by
estimate, with 0.4 GB for each of inductor's processes (0.2 to 0.3 GB measured without Triton), and
on the GPU a CUDA context and what one block of each kind needs for a micro-batch, at a time when
the rank has neither gradients nor activations; all of it is given back before the first step. Where
it fails nothing is said: the first pass compiles as well, and tells. Its own words are in the
attempt's logs (`rank-0-compiler.log`).

What is compiled is kept: in
`$XDG_CACHE_HOME/arlow/inductor` (`~/.cache` by default) or where `TORCHINDUCTOR_CACHE_DIR` says, in
pods in the run's `cacheVolume`, so that a restart compiles nothing, and starts no such process: a
file there says that the code of these sizes is complete. Tracing and reading a shape took 2.5 s on
a core of a CPU; on a GPU it has not been measured. Without a `cacheVolume` it is
an emptyDir, which outlives the container and not the pod: a new attempt compiles again. The cache
holds code that is run: who may write to a volume may run code in the runs that use it.

Activations are counted as for plain blocks: what compiled ones keep for the backward pass is no
more (`tests/plan/test_memory.py`). Times here are those of plain blocks. Measured on one H200 in
fp16, forward and backward: 96 images took 168 ms plain and 134 compiled, 24 clips with cuDNN's
attention 357 and 294.
Results are those of plain blocks up to rounding; a resume is bitwise the same while the choice and
the packages stay the same.

Attention's kernel is chosen by one function (`plan/attention.py`), compiled or not: cuDNN's on
Hopper and later in half precision, but not where a bias meets a length of 64 modulo 128, at which
its gradients may be NaN; the memory-efficient one otherwise. FlexAttention is not used: 299 ms for
24 clips beside cuDNN's 294, 143 for 96 images beside 134, and no room for its backward pass on
GPUs with little shared memory.
"""

GRAPHS = """
## Graphs of small micro-batches

A host launches the kernels of a micro-batch in about 57 ms with the full model, whatever its
size; a fast GPU computes a small one in less. On CUDA, for the sizes that are planned to be
computed in less time than they are launched, forward and backward are recorded once as a CUDA
graph, and are one launch from then on. Where activations are recomputed there are none, nor on a
GPU that the hardware table does not know.

- **Memory.** A graph keeps its activations, beside those of the largest plain micro-batch. All
  graphs share one pool, as large as the largest of them needs; the small ones come first where not
  all fit. The micro-batch is chosen without them, so that graphs take only what it leaves.
- **Tried first.** A shape's first pass in a process is plain. At the beginning of the next step
  that has it, the graph is recorded, and it must double the gradients and the loss of a plain pass
  on the same samples: up to 16 roundings of the precision in each gradient's norm, or a thousandth.
- **Given up** on all ranks where recording fails, where a graph does something else or where any
  pass runs out of memory: a warning says why, the step is done again, and the run goes on without.
- **Equal numbers.** A replay does what the plain pass does, with the same weights of samples. On
  a CPU, by an emulation, trainings with and without are the same to the bit; large layers that are
  not compiled add to the same gradients in their products. On several GPUs the last micro-batch of
  a step is plain: its gradients are reduced while they are computed.

Times of graphs here are those of a device that never waits for its host.
"""

COMPARISON = """
## The default run on all GPUs of the table
"""


def reference() -> str:
    """Returns the text of docs/planning.md."""
    plan = plan_run(load_run("arlow-vision-3072"), list(HARDWARE.values()))
    shown = [
        device for device in plan.devices if isinstance(device, DevicePlan) and device.gpu in SHOWN
    ]
    return "\n".join(
        [
            INTRODUCTION,
            as_markdown(run_table(plan)),
            "",
            as_markdown(device_table(shown)),
            OVERLAP,
            as_markdown(_overlap_table(plan.devices)),
            COMPILED,
            GRAPHS,
            COMPARISON,
            as_markdown(comparison(plan)),
            "",
        ]
    )


def _overlap_table(devices: Sequence[DevicePlan | Unfit]) -> Table:
    """Returns a row for each link: what a reduction takes, and how a step is shorter for it."""
    rows: Table = [("link", "GPUs", "a reduction", "after the pass", "a step", "without overlap")]
    for each in devices:
        if isinstance(each, DevicePlan) and each.gpu in LINKED:
            seconds = each.seconds
            before = seconds.total + seconds.hidden
            rows.append(
                (
                    each.link,
                    f"{each.gpus} x {each.gpu}",
                    f"{(seconds.reduce + seconds.hidden) * 1e3:.0f} ms",
                    f"{seconds.reduce * 1e3:.1f} ms",
                    f"{seconds.total * 1e3:,.0f} ms",
                    f"{before * 1e3:,.0f} ms: {seconds.hidden / before:.1%} are saved",
                )
            )
    return rows


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference())
