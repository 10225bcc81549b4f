"""Starts the ranks of a run, each a process, and makes one message and one exit code of their ends.

This process imports none of torch, DeepSpeed and transformers: the ranks start at once, and what
supervises them stays small.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NoReturn

import psutil

from arlow_trainer.config import ArlowPretrain
from arlow_trainer.config.ending import signal_name
from arlow_trainer.config.errors import ArlowError, ExitCode, Interrupted
from arlow_trainer.plan.compilation import compile_workers
from arlow_trainer.run.attempt import Attempt, AttemptProgress, Reason
from arlow_trainer.run.attempt_logs import LogUploader
from arlow_trainer.run.cores import usable_cores
from arlow_trainer.run.devices import (
    ATTEMPT_VARIABLE,
    VISIBLE_VARIABLE,
    Devices,
    check_batch_covers_ranks,
    decide,
    read_facts,
)
from arlow_trainer.run.last_report import report_for_rank_0
from arlow_trainer.run.options import TrainOptions
from arlow_trainer.run.rank_processes import RankProcesses
from arlow_trainer.run.signals import StopSignal
from arlow_trainer.run.termination import Reached, failures_written, write_ending
from arlow_trainer.storage.options import store_of
from arlow_trainer.storage.outbox import CLOSE_TIMEOUT_S
from arlow_trainer.storage.stacks import write_stacks_at
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


def launch(run: ArlowPretrain, ranks: int | None, options: TrainOptions) -> None:
    """Trains on `ranks` processes of this machine and returns when the run is finished.

    Without `ranks`, as `devices.decide` says. SIGTERM, Ctrl-C, a hang-up and the signal of
    the options save a checkpoint and end the run (Interrupted) within the grace period; a second
    one ends it at once. SIGUSR1 (or SIGUSR2) dumps every thread's stack to the log. Raises an
    ArlowError with the run's own exit code. However it ends, the termination message says how.
    """
    with tempfile.TemporaryDirectory(prefix="arlow-attempt-") as name:
        attempt = Attempt(Path(name))
        attempt.begin(run, options)
        write_stacks_at(options.stack_number, attempt.logs)
        progress = attempt.progress()

        def end_at_once(number: int | None) -> None:
            _end_at_once(attempt, _reached(progress), number)

        with (
            failures_written(lambda: _reached(progress)),
            StopSignal(options, end_at_once) as stop,
            ExitStack() as stack,
        ):
            stop.check()
            logs = LogUploader(store_of(run), attempt.logs, attempt.number, log.warning)
            stack.callback(lambda: logs.close(stop.grace.within(CLOSE_TIMEOUT_S)))
            devices = decide(read_facts(os.environ), run.spec.nodes, ranks, os.environ)
            check_batch_covers_ranks(devices.ranks, run.spec.global_batch_size)
            if ATTEMPT_VARIABLE not in os.environ:
                print(f"arlow: {devices.words}", file=sys.stderr, flush=True)
            attempt.use(gpus=devices.gpus)
            with RankProcesses(attempt, devices.ranks, rank_environment(devices)) as processes:
                stop.forward_to(lambda: _stop_ranks(attempt, processes, stop))
                ends = processes.wait(lambda ends: attempt.say(str(_judged(attempt, ends))))
            stop.grace.loading = attempt.loading
            if any(ends.values()) or len(ends) < devices.ranks:
                failure = _judged(attempt, ends)
                if not attempt.reports_closed:
                    timeout_s = stop.grace.within(CLOSE_TIMEOUT_S)
                    report_for_rank_0(run, processes.numbers, failure, timeout_s)
                raise failure
        write_ending(ExitCode.FINISHED, "", _reached(progress))


def _judged(attempt: Attempt, ends: Mapping[int, int]) -> ArlowError:
    return judge_failure(attempt.reasons(), ends, attempt.stopped_at is not None)


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


def _stop_ranks(attempt: Attempt, processes: RankProcesses, stop: StopSignal) -> None:
    """Sends SIGTERM to the ranks; those that have not started yet find a file that says so."""
    # In a signal's handler, which must not raise: the disk may be full.
    with suppress(OSError):
        attempt.stop(stop.grace.begun)
    processes.signal(signal.SIGTERM)


def rank_environment(devices: Devices) -> dict[str, str]:
    """Returns the environment of every rank."""
    environ = dict(os.environ)
    # Without it, blocks of many sizes leave holes in a GPU's memory that nothing fits into.
    if "PYTORCH_CUDA_ALLOC_CONF" not in environ:
        environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    # Compiled blocks are kept between runs, and not in /tmp, where torch has them, until a reboot.
    caches = Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(caches / "arlow" / "inductor"))
    # For each rank; torch takes up to 32 for each, whatever the ranks.
    workers = compile_workers(usable_cores(), devices.ranks)
    environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(workers))
    if not devices.gpus:
        # No library in a rank on CPUs may find a GPU.
        environ[VISIBLE_VARIABLE] = ""
    return environ


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
    defects = [reason for reason in reasons if not reason.second_hand]
    if defects and not killed:
        first = defects[0]
        return RunFailed(
            f"rank {first.rank} failed: {first.message}", ExitCode.INTERNAL, first.rank
        )
    if killed:
        rank, number = next(iter(killed.items()))
        return _killed(rank, number)
    if stopping and not reasons:
        return Interrupted(
            "stopped as asked, before the first step; the same command starts or resumes the run"
        )
    silent = {rank: code for rank, code in ends.items() if code and rank not in _ranks(reasons)}
    if silent or not reasons:
        named = ", ".join(f"rank {rank} with {code}" for rank, code in (silent or ends).items())
        return RunFailed(
            f"ranks ended without a reason: {named or 'none'}; see the log above",
            ExitCode.INTERNAL,
            next(iter(silent), None),
        )
    return RunFailed(
        f"rank {reasons[0].rank} failed: {reasons[0].message}", ExitCode.INTERNAL, reasons[0].rank
    )


def _ranks(reasons: Sequence[Reason]) -> set[int]:
    return {reason.rank for reason in reasons}


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
