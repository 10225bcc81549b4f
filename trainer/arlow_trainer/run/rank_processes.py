"""The ranks of a run as processes: started together, and ended together when one has failed."""

from __future__ import annotations

import math
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from types import TracebackType

from arlow_trainer.run.attempt import Attempt

OTHERS_S = 5.0
"""How long other ranks may go on after one has failed. Those that hear of it end by themselves;
those that wait for it on a GPU never do."""
LAST_WORDS_S = 30.0
"""How long a rank that has said why it ends may take to end: rank 0 reports for the run."""
NEWS_S = 1.0
"""How long a rank that only tells of another's end is taken for the news of it."""
_POLL_S = 0.05

STORE_SOCKET = "ARLOW_STORE_SOCKET"
"""Descriptor of the socket on which rank 0 serves the ranks' key-value store. It listens before any
rank starts, so that no other program can take its port."""


class RankProcesses(AbstractContextManager["RankProcesses"]):
    """The processes of an attempt's ranks on this machine; none of them outlives the context."""

    def __init__(self, attempt: Attempt, ranks: int, environ: Mapping[str, str]) -> None:
        """Starts `ranks` processes with the environment `environ` and what places each of them.

        Called in the main thread: they end when the thread that started them does.
        """
        self._attempt = attempt
        self._ended_by_us: set[int] = set()
        command = [sys.executable, "-m", "arlow_trainer.run.rank", str(attempt.folder)]
        with socket.socket() as store:
            store.bind(("127.0.0.1", 0))
            store.listen(4 * ranks)
            group = {
                "WORLD_SIZE": str(ranks),
                "LOCAL_WORLD_SIZE": str(ranks),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(store.getsockname()[1]),
            }
            self._processes = [
                subprocess.Popen(
                    command,
                    env={
                        **environ,
                        **group,
                        "RANK": str(rank),
                        "LOCAL_RANK": str(rank),
                        STORE_SOCKET: str(store.fileno()) if rank == 0 else "",
                    },
                    stdin=subprocess.DEVNULL,
                    pass_fds=[store.fileno()] if rank == 0 else [],
                    # Ctrl-C at a terminal reaches the launcher alone, which says what to do.
                    start_new_session=True,
                )
                for rank in range(ranks)
            ]

    @property
    def numbers(self) -> list[int]:
        """The processes' numbers, in the order of ranks."""
        return [process.pid for process in self._processes]

    def wait(self, on_failure: Callable[[Mapping[int, int]], None]) -> dict[int, int]:
        """Returns the exit codes of the ranks when all have ended, by rank in the order of ends.

        Below zero is the signal that ended one. When a rank has failed `on_failure` is called with
        the exit codes until then; the others are ended within `OTHERS_S`, and those that have said
        why they end within `LAST_WORDS_S`, or by the grace period of a stop. These have no code.
        """
        ends: dict[int, int] = {}
        failed_at: float | None = None
        told = False
        while len(ends) + len(self._ended_by_us) < len(self._processes):
            for rank, process in enumerate(self._processes):
                if rank not in ends and rank not in self._ended_by_us:
                    code = process.poll()
                    if code is not None:
                        ends[rank] = code
            reasons = self._attempt.reasons()
            speaking = {reason.rank for reason in reasons}
            now = time.monotonic()
            if failed_at is None and (speaking or any(ends.values())):
                failed_at = now
            if failed_at is not None:
                known = any(ends.values()) or any(not reason.second_hand for reason in reasons)
                # A rank may tell of another's end before that one has ended.
                if not told and (known or now - failed_at > NEWS_S):
                    told = True
                    on_failure(ends)
                last_words_s = LAST_WORDS_S if self._attempt.stopped_at is None else math.inf
                for rank, process in enumerate(self._processes):
                    limit = last_words_s if rank in speaking else OTHERS_S
                    if process.poll() is None and now - failed_at > limit:
                        self._ended_by_us.add(rank)
                        process.kill()
            time.sleep(_POLL_S)
        return ends

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the ranks that live."""
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.send_signal(number)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
