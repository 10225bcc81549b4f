"""Compiles a rank's blocks while it starts: `python -m arlow_trainer.engine.ahead` does it.

In a process of its own, which leaves the code in inductor's cache. A thread would not do: dynamo
sets torch's random generators, which belong to the whole process, back to where they were when it
began, and a model that is built meanwhile is given other first weights than its seed's (8 of 2,157
built beside a thread that compiled). It would also trace under the lock that the rank imports and
builds with.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from arlow_trainer.config import Modality, Precision, TrainingSection
from arlow_trainer.engine.attention import attention_kernels, kernel, set_gpu_switches
from arlow_trainer.engine.build import build_autoencoder
from arlow_trainer.engine.compilation import Blocks, why_plain
from arlow_trainer.engine.devices import device_name
from arlow_trainer.engine.linear import add_in_products
from arlow_trainer.mae import visible_unit_batch
from arlow_trainer.plan.micro_batches import Sizes, drawn_sizes
from arlow_trainer.plan.tokens import Tokens, tokens_per_clip, tokens_per_image
from arlow_trainer.storage.process_log import keep_output

CACHE = "TORCHINDUCTOR_CACHE_DIR"
LONGEST_S = 600.0
"""That is waited for the process: of eight shapes the plan expects two minutes."""
_DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


@dataclass(frozen=True)
class Job:
    """What decides the code of a rank's blocks.

    Attributes:
        training: the run's section, as JSON.
        precision: that the device trains in.
        device: the rank's, by torch's name. A cached graph names it.
        threads: torch's, which are compiled in on a CPU.
        sizes: samples of the micro-batches, by modality.
    """

    training: str
    precision: Precision
    device: str
    threads: int
    sizes: Mapping[Modality, tuple[int, ...]]

    @staticmethod
    def of(
        training: TrainingSection,
        precision: Precision,
        device: torch.device,
        sizes: Mapping[Modality, Sizes],
    ) -> Job:
        """Returns the job of a rank with as many threads as this process has."""
        return Job(
            training.model_dump_json(),
            precision,
            str(device),
            torch.get_num_threads(),
            drawn_sizes(training, sizes),
        )

    def done(self, cache: Path) -> Path:
        """Returns the file that says that `cache` holds all of the job's code."""
        training = json.loads(self.training)
        known = asdict(self) | {
            "training": {
                name: training[name] for name in ("model", "mae", "gradient_checkpointing")
            },
            "pixels": [training["data"][name] for name in ("image_size", "clip_frames")],
            "gpu": device_name(torch.device(self.device)),
            "versions": [version("torch"), version("arlow-pretrain")],
        }
        digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
        return cache / f"arlow-{digest[:32]}"


class CompileAhead(AbstractContextManager["CompileAhead"]):
    """While entered, a process that compiles the blocks of a rank for its first steps.

    There is none where the blocks run plain, or where the cache has been given their code before. A
    failure is not told: the first pass meets it again, and tells.
    """

    def __init__(self, job: Job | None, log: Path) -> None:
        """Prepares the process.

        Args:
            job: what is compiled; None: another rank's is enough.
            log: keeps what the process writes.
        """
        self._job, self._log = job, log
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> CompileAhead:
        job = self._job
        if job is None:
            return self
        training = TrainingSection.model_validate_json(job.training)
        plain, _ = why_plain(training.compile, torch.device(job.device))
        cache = os.environ.get(CACHE)
        if plain is not None or cache is None or job.done(Path(cache)).exists():
            return self
        with suppress(OSError):
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(self._log)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                # With the compilers that it starts it is a group, which ends at once.
                start_new_session=True,
            )
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(asdict(job)) + "\n")
            self._process.stdin.flush()
        return self

    @property
    def running(self) -> bool:
        """Whether there is anything to wait for."""
        return self._process is not None and self._process.poll() is None

    def wait(self) -> None:
        """Waits for the process's end; from then on, nothing of it is on the device.

        One that takes `LONGEST_S` is ended: what it has not compiled, the first pass does.
        """
        if self._process is not None:
            try:
                self._process.wait(LONGEST_S)
            except subprocess.TimeoutExpired:
                self._end()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is None:
            return
        self._end()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def _end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def compile_blocks(job: Job) -> None:
    """Compiles the blocks of both kinds for all sizes, into inductor's cache.

    On the smallest autoencoder that has them, by passes like those of a step: what they are given
    is laid out as there because the same code makes it.
    """
    device = torch.device(job.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        set_gpu_switches()
    torch.set_num_threads(job.threads)
    training = TrainingSection.model_validate_json(job.training)
    module = build_autoencoder(_least(training), device).to(_DTYPES[job.precision]).train()
    add_in_products(module)
    kernels = attention_kernels(training, device)
    blocks = Blocks(module, training.compile, device, kernels)
    tokens = {"image": tokens_per_image(training), "video": tokens_per_clip(training)}
    for modality, sizes in job.sizes.items():
        # The largest, for which the device may have no memory yet, comes last.
        for size in sorted(sizes):
            with kernel(kernels[modality]), blocks.compiled():
                _pass(module, training, modality, tokens[modality], size, device)
            module.zero_grad()


def _least(training: TrainingSection) -> TrainingSection:
    """The section of an autoencoder with one block of each kind, otherwise the same."""
    model = training.model.model_copy(update={"depth": 1, "deepstack_visual_indexes": []})
    mae = training.mae.model_copy(update={"decoder_depth": 1})
    return training.model_copy(update={"model": model, "mae": mae})


def _pass(
    module: Any,
    training: TrainingSection,
    modality: Modality,
    tokens: Tokens,
    size: int,
    device: torch.device,
) -> None:
    frames = 1 if modality == "image" else training.data.clip_frames
    side = training.data.image_size
    pixels = torch.zeros(size, frames, side, side, 3, dtype=torch.uint8, device=device)
    hidden = training.mae.hidden_unit_count(tokens.units)
    units = visible_unit_batch(range(size), tokens.units, hidden).to(device)
    module(pixels, units).sum().backward()


def _end_with_rank() -> None:
    # The rank holds the other end and writes nothing more.
    sys.stdin.read()
    os._exit(1)


def main(log: Path) -> int:
    """Does the job that stdin names in a line; returns the exit code."""
    keep_output(log)
    job = Job(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with_rank, daemon=True).start()
    try:
        compile_blocks(job)
        job.done(Path(os.environ[CACHE])).touch()
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    # Compilers that wait for more work must not delay the rank.
    os._exit(code)
