"""One rank of a run, as a process under the launcher: `python -m arlow_trainer.run.rank`.

It reports why it ends to a file, since an exit code says little and a killed rank's says less.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from pathlib import Path

from arlow_trainer.config.errors import ArlowError, ExitCode
from arlow_trainer.config.shown_text import shown
from arlow_trainer.run.attempt import Attempt
from arlow_trainer.run.devices import check_torch
from arlow_trainer.run.early_check import EarlyCheck
from arlow_trainer.run.reasons import report
from arlow_trainer.run.signals import StopSignal
from arlow_trainer.storage.process_log import keep_output, log_name
from arlow_trainer.storage.stacks import write_stacks_at

_PR_SET_PDEATHSIG = 1


def rank_main(folder: Path) -> int:
    """Runs one rank; returns its exit code."""
    # Ranks have sessions of their own: without this they would outlive a killed launcher.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    rank, attempt = int(os.environ["RANK"]), Attempt(folder)
    if os.getppid() != attempt.launcher:
        return ExitCode.INTERRUPTED  # It was killed before the line above.
    options = attempt.options()
    keep_output(attempt.logs / log_name(rank))
    write_stacks_at(options.stack_number)
    try:
        with StopSignal(options) as stop:
            stop.grace.loading = True
            if (stopped_at := attempt.stopped_at) is not None:
                stop.request(stopped_at)
            run = attempt.run()
            early = EarlyCheck(run) if rank == 0 else None
            with stop.interruptible():
                check_torch(attempt.gpus, int(os.environ["LOCAL_RANK"]))
                from arlow_trainer.run.train import train

            train(run, options, stop, attempt, early)
        return ExitCode.FINISHED
    except BaseException as error:
        code = report(attempt, rank, error)
        if code == ExitCode.INTERNAL and not isinstance(error, ArlowError):
            # Messages in it may hold what the user's terminal should not act on.
            print(shown(traceback.format_exc()), file=sys.stderr)
        return code


if __name__ == "__main__":
    code = rank_main(Path(sys.argv[1]))
    # Threads of libraries (stores, loaders) must not delay a rank that has reported its reason.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
