"""One rank of a run, as a process under the elastic launcher: `python -m arlow_trainer.run.rank`.

It reports why it ended to a file, because the elastic launcher's exit code is always 1.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from pathlib import Path

from arlow_trainer.config.errors import ArlowError, ExitCode, Interrupted
from arlow_trainer.run.attempt import Attempt
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
    options = attempt.options()
    keep_output(attempt.logs / log_name(rank))
    write_stacks_at(options.stack_number)
    try:
        with StopSignal(options) as stop:
            if (stopped_at := attempt.stopped_at) is not None:
                stop.request(stopped_at)
            from arlow_trainer.run.train import train

            train(attempt.run(), options, stop, attempt)
        return ExitCode.FINISHED
    except ArlowError as error:
        code, message = error.exit_code, str(error)
        second_hand = getattr(error, "second_hand", False)
        log = "" if isinstance(error, Interrupted) else traceback.format_exc()
    except BaseException as error:
        code, message, second_hand = ExitCode.INTERNAL, f"{type(error).__name__}: {error}", False
        log = traceback.format_exc()
    attempt.report(rank, int(code), message, second_hand)
    if code == ExitCode.INTERNAL:
        print(log, file=sys.stderr)
    return code


if __name__ == "__main__":
    code = rank_main(Path(sys.argv[1]))
    # Threads of libraries (stores, loaders) must not delay a rank that has reported its reason.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
