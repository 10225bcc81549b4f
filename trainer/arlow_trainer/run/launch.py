"""Starts the ranks of a run: in this process for one, under torch's elastic launcher for more.

The ranks' reasons become one message, one exit code and the termination message.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NoReturn

import psutil

from arlow_trainer.config import ArlowPretrain
from arlow_trainer.config.ending import signal_name
from arlow_trainer.config.errors import ArlowError, ExitCode, Interrupted
from arlow_trainer.run.attempt import Attempt, AttemptProgress, Reason
from arlow_trainer.run.attempt_logs import LogUploader
from arlow_trainer.run.options import TrainOptions
from arlow_trainer.run.signals import StopSignal
from arlow_trainer.run.termination import Reached, failures_written, write_ending
from arlow_trainer.storage.options import store_of
from arlow_trainer.storage.outbox import CLOSE_TIMEOUT_S
from arlow_trainer.storage.process_log import keep_output, log_name
from arlow_trainer.storage.stacks import write_stacks_at, write_stacks_to_log
from arlow_trainer.storage.streams import write_stderr

log = logging.getLogger(__name__)

# SIGBUS is what a process gets that touches shared memory for which there is no memory.
_OUT_OF_MEMORY = (signal.SIGKILL, signal.SIGBUS)


class RunFailed(ArlowError):
    """A run that ended before its last step, with the reason of the rank that failed first.

    `rank` is None where no single rank failed.
    """

    def __init__(self, message: str, exit_code: ExitCode, rank: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.rank = rank


def default_ranks() -> int:
    """Returns one rank a GPU of this machine, or one on a CPU."""
    import torch

    return max(1, torch.cuda.device_count())


def launch(run: ArlowPretrain, ranks: int | None, options: TrainOptions) -> None:
    """Trains on `ranks` processes of this machine and returns when the run is finished.

    Without `ranks`, one for each GPU, or one on a CPU. SIGTERM, Ctrl-C, a hang-up and the signal of
    the options save a checkpoint and end the run (Interrupted) within the grace period; a second
    one ends it at once. SIGUSR1 (or SIGUSR2) dumps every thread's stack to the log. Raises an
    ArlowError with the run's own exit code. However it ends, the termination message says how.
    """
    write_stacks_at(options.stack_number)
    # Read when torch is imported, here and in the ranks: without it, blocks of many sizes leave
    # holes in a GPU's memory that nothing fits into.
    if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    with tempfile.TemporaryDirectory(prefix="arlow-attempt-") as name:
        attempt = Attempt(Path(name))
        attempt.begin(run, options)
        progress = attempt.progress()

        def end_at_once(number: int | None) -> None:
            _end_at_once(attempt, _reached(progress), number)

        # Before torch is imported, which takes seconds in which a signal would end the process.
        with (
            failures_written(lambda: _reached(progress)),
            StopSignal(options, end_at_once) as stop,
            ExitStack() as stack,
        ):
            stop.check()
            logs = LogUploader(store_of(run), attempt.logs, attempt.number, log.warning)
            stack.callback(lambda: logs.close(stop.grace.within(CLOSE_TIMEOUT_S)))
            ranks = ranks or default_ranks()
            if ranks == 1:
                _single(attempt, stop)
            else:
                stop.forward_to(lambda: _stop_ranks(attempt, stop))
                _elastic(attempt, ranks)
        write_ending(ExitCode.FINISHED, "", _reached(progress))


def _reached(progress: AttemptProgress) -> Reached:
    return Reached(progress.step, progress.saved)


def _end_at_once(attempt: Attempt, reached: Reached, number: int | None) -> NoReturn:
    """Ends this process and all under it; nothing more is saved, and nothing is waited for."""
    by_keyboard = number == signal.SIGINT
    code = ExitCode.KEYBOARD_INTERRUPT if by_keyboard else ExitCode.INTERRUPTED
    try:
        _report_end_at_once(attempt, reached, number, code)
    finally:
        os._exit(code)


def _report_end_at_once(
    attempt: Attempt, reached: Reached, number: int | None, code: ExitCode
) -> None:
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            process.kill()
    why = "the grace period was over before all was saved"
    if number is not None:
        why = f"ended at once by a second signal ({signal_name(number)})"
    again = "starts the run again"
    if reached.saved is not None:
        again = f"resumes from the checkpoint of step {reached.saved:,}"
    message = f"stopped at step {reached.step or 0:,}: {why}; the same command {again}"
    write_ending(code, message, reached)
    # Not `print`: this may interrupt one. A live display has hidden the cursor.
    cursor = "\x1b[?25h" if os.isatty(2) else ""
    write_stderr(f"{cursor}note: {message}\n")
    shutil.rmtree(attempt.folder, ignore_errors=True)


def _stop_ranks(attempt: Attempt, stop: StopSignal) -> None:
    """Sends SIGTERM to the ranks; those that have not started yet find a file that says so."""
    # In a signal's handler, which must not raise: the disk may be full.
    with suppress(OSError):
        attempt.stop(stop.grace.begun)
    _signal_ranks(signal.SIGTERM)


def _signal_ranks(number: signal.Signals) -> None:
    for rank in psutil.Process().children():
        with suppress(psutil.Error):
            rank.send_signal(number)


def _single(attempt: Attempt, stop: StopSignal) -> None:
    from arlow_trainer.run.train import train

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(
        RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    kept, options = keep_output(attempt.logs / log_name(0)), attempt.options()
    write_stacks_to_log(options.stack_number)
    try:
        train(attempt.run(), options, stop, attempt)
    except ArlowError:
        raise
    except Exception:
        # It is reported when the log has been stored.
        kept.write(traceback.format_exc())
        raise


def _elastic(attempt: Attempt, ranks: int) -> None:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # It would report every rank's end in its own words; `judge_failure` gives the reason.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=attempt.run().metadata.name,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        # We handle SIGTERM ourselves: the launcher would allow 30 s for a checkpoint that may need
        # minutes. SIGHUP too: nohup ignores it, the launcher would not.
        signals_to_handle="SIGQUIT",
    )
    command = [sys.executable, "-m", "arlow_trainer.run.rank", str(attempt.folder)]
    try:
        elastic_launch(config, command[0])(*command[1:])
    except ChildFailedError as error:
        ends = {rank: failure.exitcode for rank, failure in sorted(error.failures.items())}
        raise judge_failure(attempt.reasons(), ends, attempt.stopped_at is not None) from None


def judge_failure(reasons: Sequence[Reason], ends: Mapping[int, int], stopping: bool) -> ArlowError:
    """Returns the failure that came first: of the ranks' own reasons, or of how they ended.

    Args:
        reasons: what the ranks reported, the first first.
        ends: exit codes of the ranks that ended first; below zero the signal that ended one.
        stopping: whether the run was asked to stop.
    """
    killed = {rank: -code for rank, code in ends.items() if code < 0 and code != -signal.SIGTERM}
    own = [reason for reason in reasons if reason.exit_code != ExitCode.INTERNAL]
    first_hand = [reason for reason in own if not reason.second_hand]
    if first_hand or (own and not killed):
        first = (first_hand or own)[0]
        if first.exit_code == ExitCode.INTERRUPTED:
            return Interrupted(first.message)
        return RunFailed(first.message, ExitCode(first.exit_code), first.rank)
    if killed:
        rank, number = next(iter(killed.items()))
        return _killed(rank, number)
    if stopping and not reasons:
        return Interrupted(
            "stopped as asked, before the first step; the same command starts or resumes the run"
        )
    if reasons:
        first = reasons[0]
        return RunFailed(
            f"rank {first.rank} failed: {first.message}", ExitCode.INTERNAL, first.rank
        )
    ranks = ", ".join(f"rank {rank} with {code}" for rank, code in ends.items())
    return RunFailed(f"ranks ended without a reason: {ranks}; see the log above", ExitCode.INTERNAL)


def _killed(rank: int, number: int) -> RunFailed:
    resumes = "The same command resumes from the newest checkpoint."
    if number in _OUT_OF_MEMORY:
        return RunFailed(
            f"rank {rank} was killed by {signal_name(number)}; the kernel does so when memory runs "
            f"out: give the machine or pod more, or lower data.workers. {resumes}",
            ExitCode.KILLED,
            rank,
        )
    return RunFailed(
        f"rank {rank} crashed with {signal_name(number)}; see the log above. {resumes}",
        ExitCode.INTERNAL,
        rank,
    )
