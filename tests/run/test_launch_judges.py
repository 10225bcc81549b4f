"""Which of the ranks' ends is the run's."""

from __future__ import annotations

import pytest

from arlow_trainer.config.errors import ExitCode
from arlow_trainer.run.attempt import Reason
from arlow_trainer.run.launch import judge_failure

LOST = Reason(0, 70, "RuntimeError: Connection closed by peer", 1.0)
LOST_HEARD = Reason(0, 70, "RuntimeError: Connection closed by peer", 1.0, second_hand=True)
DEFECT = Reason(1, 70, "KeyError: 'x'", 2.0)
DATA = Reason(1, 65, "no images", 2.0)
STOPPED = Reason(0, 75, "stopped at step 3", 1.0)
SECOND_HAND = Reason(0, 74, "another rank's save failed", 1.0, second_hand=True)


@pytest.mark.parametrize(
    ("reasons", "ends", "stopping", "code", "rank", "words"),
    [
        ([LOST, DATA], {0: 1, 1: 1}, False, ExitCode.DATA, 1, "no images"),
        ([LOST], {1: -9}, False, ExitCode.KILLED, 1, "rank 1 was killed by SIGKILL"),
        ([LOST], {0: 1, 1: -9}, False, ExitCode.KILLED, 1, "memory"),
        ([], {2: -7}, False, ExitCode.KILLED, 2, "SIGBUS"),
        ([LOST], {1: -11}, False, ExitCode.INTERNAL, 1, "rank 1 crashed with SIGSEGV"),
        ([LOST], {1: -35}, False, ExitCode.INTERNAL, 1, "rank 1 crashed with signal 35"),
        ([LOST], {1: -34}, False, ExitCode.INTERNAL, 1, "rank 1 crashed with SIGRTMIN"),
        ([SECOND_HAND], {1: -9}, False, ExitCode.KILLED, 1, "SIGKILL"),
        ([SECOND_HAND, DATA], {0: 1}, False, ExitCode.DATA, 1, "no images"),
        ([SECOND_HAND], {0: 1}, False, ExitCode.STORE, 0, "another rank's save"),
        ([LOST], {0: 1, 1: -15}, False, ExitCode.INTERNAL, 0, "rank 0 failed"),
        ([STOPPED], {0: 75, 1: 75}, True, ExitCode.INTERRUPTED, None, "stopped at step 3"),
        ([], {0: -15, 1: -15}, True, ExitCode.INTERRUPTED, None, "before the first step"),
        ([], {0: 1}, False, ExitCode.INTERNAL, 0, "without a reason: rank 0 with 1"),
        ([LOST_HEARD], {1: 3}, False, ExitCode.INTERNAL, 1, "without a reason: rank 1 with 3"),
        ([LOST_HEARD, DEFECT], {}, False, ExitCode.INTERNAL, 1, "rank 1 failed: KeyError"),
        ([LOST_HEARD], {1: -9}, False, ExitCode.KILLED, 1, "rank 1 was killed by SIGKILL"),
    ],
)
def test_the_first_failure_is_reported(
    reasons: list[Reason],
    ends: dict[int, int],
    stopping: bool,
    code: ExitCode,
    rank: int | None,
    words: str,
) -> None:
    failure = judge_failure(reasons, ends, stopping)
    assert failure.exit_code is code
    assert getattr(failure, "rank", None) == rank
    assert words in str(failure)
