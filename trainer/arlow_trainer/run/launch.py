"""Starts the ranks of a run: in this process for one, under torch's elastic launcher for more.

A rank writes the reason it ended to a file of its own, because the elastic launcher's exit code is
always 1; this module turns the reasons into one message and one exit code.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from arlow_trainer.config import ArlowPretrain, validate
from arlow_trainer.config.errors import ArlowError, ExitCode, Interrupted
from arlow_trainer.run.options import TrainOptions
from arlow_trainer.run.signals import StopSignal, announce_stop, stop_signals
from arlow_trainer.telemetry.logs import register_stack_dump

_PR_SET_PDEATHSIG = 1
_STOP_FILE = "stop"


class RunFailed(ArlowError):
    """A run that ended before its last step, with the reason of the rank that failed first."""

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Reason:
    """Why a rank ended, as that rank reports it."""

    rank: int
    exit_code: int
    message: str
    time: float


def default_ranks() -> int:
    """Returns one rank a GPU of this machine, or one on a CPU."""
    import torch

    return max(1, torch.cuda.device_count())


def launch(run: ArlowPretrain, ranks: int | None, options: TrainOptions) -> None:
    """Trains on `ranks` processes of this machine and returns when the run is finished.

    Without `ranks`, one per GPU, or one on a CPU. SIGTERM, Ctrl-C and a hang-up save a
    checkpoint and end the run (Interrupted), a second Ctrl-C ends it at once; SIGUSR1 dumps every
    thread's stack to the log. Raises an ArlowError with the run's own exit code.
    """
    register_stack_dump()
    try:
        # Before torch is imported, which takes seconds in which a signal would end the process.
        with StopSignal(announce=True) as stop:
            ranks = ranks or default_ranks()
            if ranks == 1:
                _single(run, options, stop)
                return
            with tempfile.TemporaryDirectory(prefix="arlow-ranks-") as name:
                folder = Path(name)
                with _forwarded_signals(folder):
                    if stop.raised:
                        (folder / _STOP_FILE).touch()
                    _elastic(run, ranks, options, folder)
    except ArlowError as error:
        _write_termination_log(error.exit_code, str(error))
        raise
    except Exception as error:
        _write_termination_log(ExitCode.INTERNAL, f"{type(error).__name__}: {error}")
        raise


def _single(run: ArlowPretrain, options: TrainOptions, stop: StopSignal) -> None:
    from arlow_trainer.run.train import train

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(
        RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    train(run, options, stop)


def _elastic(run: ArlowPretrain, ranks: int, options: TrainOptions, folder: Path) -> None:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # It would report every rank's end in its own words; `_failure_of` gives the reason.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    # Fields that the user did not set stay unset: advice depends on it.
    (folder / "run.json").write_text(run.model_dump_json(by_alias=True, exclude_unset=True))
    (folder / "options.json").write_text(json.dumps(asdict(options)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=run.metadata.name,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        # We handle SIGTERM ourselves: the launcher would allow 30 s for a checkpoint that may need
        # minutes. SIGHUP too: nohup ignores it, the launcher would not.
        signals_to_handle="SIGQUIT",
    )
    command = [sys.executable, "-m", "arlow_trainer.run.launch", str(folder)]
    # A rank's share of the cores; torch would take all of them in every rank.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks)))
    try:
        elastic_launch(config, command[0])(*command[1:])
    except ChildFailedError as error:
        raise _failure_of(folder, error.failures) from None


@contextmanager
def _forwarded_signals(folder: Path) -> Iterator[None]:
    """Forwards SIGUSR1, and every signal that asks to stop as SIGTERM, to the ranks.

    Ranks that have not started yet find a file that says to stop.
    """

    def forward(number: int, _: object) -> None:
        send = signal.SIGUSR1 if number == signal.SIGUSR1 else signal.SIGTERM
        again = number == signal.SIGINT and (folder / _STOP_FILE).exists()
        if send == signal.SIGTERM:
            if not (folder / _STOP_FILE).exists():
                announce_stop()
            (folder / _STOP_FILE).touch()
        for rank in psutil.Process().children():
            with suppress(psutil.Error):
                rank.send_signal(signal.SIGKILL if again else send)
        if again:
            raise KeyboardInterrupt

    numbers = {*stop_signals(), signal.SIGUSR1}
    before = {number: signal.signal(number, forward) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _failure_of(folder: Path, failures: dict[int, Any]) -> ArlowError:
    """Returns the first failure: from the ranks' own reasons, or from how their processes ended."""
    reasons = [Reason(**json.loads(path.read_text())) for path in folder.glob("reason-*.json")]
    ends = {rank: failure.exitcode for rank, failure in sorted(failures.items())}
    killed = {rank: -code for rank, code in ends.items() if code < 0 and code != -signal.SIGTERM}
    own = [reason for reason in reasons if reason.exit_code != ExitCode.INTERNAL]
    if own:
        first = min(own, key=lambda reason: reason.time)
        if first.exit_code == ExitCode.INTERRUPTED:
            return Interrupted(first.message)
        return RunFailed(first.message, ExitCode(first.exit_code))
    if killed:
        rank, number = next(iter(killed.items()))
        return RunFailed(
            f"rank {rank} was killed by {signal.Signals(number).name}; the kernel does so when "
            "memory runs out. The same command resumes from the newest checkpoint.",
            ExitCode.INTERNAL,
        )
    if (folder / _STOP_FILE).exists() and not reasons:
        return Interrupted(
            "stopped as asked, before the first step; the same command starts or resumes the run"
        )
    if reasons:
        first = min(reasons, key=lambda reason: reason.time)
        return RunFailed(f"rank {first.rank} failed: {first.message}", ExitCode.INTERNAL)
    ranks = ", ".join(f"rank {rank} with {code}" for rank, code in ends.items())
    return RunFailed(f"ranks ended without a reason: {ranks}; see the log above", ExitCode.INTERNAL)


def _write_termination_log(exit_code: ExitCode, message: str) -> None:
    """Writes the message to the pod's termination log, where there is one."""
    path = Path("/dev/termination-log")
    if path.exists():
        line = json.dumps({"exitCode": int(exit_code), "message": message})
        with suppress(OSError):
            path.write_text(line + "\n")


def rank_main(folder: Path) -> int:
    """Runs one rank under the elastic launcher; returns its exit code."""
    # Ranks have sessions of their own: without this they would outlive a killed launcher.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    register_stack_dump()
    rank = int(os.environ["RANK"])
    try:
        with StopSignal(announce=False) as stop:
            stop.raised |= (folder / _STOP_FILE).exists()
            from arlow_trainer.run.train import train

            run = validate(json.loads((folder / "run.json").read_text()), "the run")
            options = TrainOptions(**json.loads((folder / "options.json").read_text()))
            train(run, options, stop)
        return ExitCode.FINISHED
    except ArlowError as error:
        reason = Reason(rank, int(error.exit_code), str(error), time.time())
        log = "" if isinstance(error, Interrupted) else traceback.format_exc()
    except BaseException as error:
        words = f"{type(error).__name__}: {error}"
        reason = Reason(rank, int(ExitCode.INTERNAL), words, time.time())
        log = traceback.format_exc()
    (folder / f"reason-{rank}.json").write_text(json.dumps(asdict(reason)))
    if reason.exit_code == ExitCode.INTERNAL:
        print(log, file=sys.stderr)
    return reason.exit_code


if __name__ == "__main__":
    code = rank_main(Path(sys.argv[1]))
    # Threads of libraries (stores, loaders) must not delay a rank that has reported its reason.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
