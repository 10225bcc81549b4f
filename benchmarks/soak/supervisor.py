"""Runs a run to its end through its faults, as a supervisor would: the same command, again."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

import psutil

from arlow_trainer.config.errors import ExitCode

from .faults import GRACE_S, Fault, Mode, Phase, Target, next_fault
from .judge import Attempted, problems_of
from .phases import first_step, last_step, resumed_at
from .proxy import FaultyProxy
from .runs import EVERY, STEPS, Attempt, SoakRun, Weights, outliving

FURTHER_S = 240.0
"""A run that writes nothing to its log for so long does not get further."""
BACK_OFF_S = 1.0
SPREAD_S = 1.5
"""How far into starting, loading or stepping a fault comes, at most."""
ENDING_SPREAD_S = 0.3
"""Likewise for the end, which takes less than a second on a local store."""
ORPHANS_S = 10.0
"""Ranks and decoding processes end within this time after their launcher."""
QUICK_LOOK_S, LOOK_S = 0.004, 0.05
_BRIEF = (Phase.SAVING, Phase.COMMITTING, Phase.PRUNING)


@dataclass
class Row:
    """What came of one fault.

    Attributes:
        at: when it came; a fault of the store comes with the first request that meets it.
        code: the exit code of the attempt that it ended; None where that went on.
        cause: of the termination message.
        lost: steps that were done and had to be done again.
        step_s: seconds until the next step, or the end; None where the next fault came before.
        saved_s: seconds until the next checkpoint, where the attempt went on.
    """

    run: int
    shape: str
    fault: Fault
    at: float
    code: int | None = None
    cause: str = ""
    lost: int | None = None
    step_s: float | None = None
    saved_s: float | None = None


@dataclass
class Outcome:
    """A run's rows, what is wrong with it, and the faults that it ended too early for."""

    rows: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    left: list[Fault] = field(default_factory=list)
    attempts: int = 0


@dataclass
class Struck:
    """A fault whose next step has not been seen yet.

    Attributes:
        log_size: where the next step would be in the log; None while the attempt is ending.
    """

    row: Row
    log_size: int | None


class Stuck(Exception):
    """A run that does not get further."""


class Supervisor:
    """One run and its faults."""

    def __init__(
        self,
        number: int,
        run: SoakRun,
        proxy: FaultyProxy | None,
        reference: Weights,
        say: Callable[[str], None],
    ) -> None:
        """`number` counts the runs; `proxy` is on the way to a store that is not local."""
        self._number, self._run, self._proxy = number, run, proxy
        self._reference, self._say = reference, say
        self._outcome = Outcome()
        self._faults: list[Fault] = []
        # The fault that the store has at the moment, and its end, once it was met.
        self._failing: Row | None = None
        self._mend_at: float | None = None
        # What earlier faults may still do to an attempt: exit codes, and lost intervals.
        self._after: set[int] = set()
        self._intervals = 2
        self._struck: Struck | None = None
        # Rows of attempts that ended, and the step that was reached then.
        self._ended: list[tuple[Row, int]] = []
        self._reached = 0
        self._family: list[psutil.Process] = []
        self._grown = (0, time.monotonic())

    def work(self, faults: Collection[Fault]) -> Outcome:
        """Starts the run again and again until it is finished, and compares what it made."""
        self._faults = list(faults)
        most, code = 4 * len(faults) + 8, -1
        try:
            while code != ExitCode.FINISHED:
                if self._outcome.attempts == most:
                    raise Stuck(f"not finished after {most} attempts")
                code = self._attempt()
                if code not in (ExitCode.FINISHED, ExitCode.INTERRUPTED):
                    self._pause(BACK_OFF_S)
            self._mend()
            self._compare()
        except Stuck as stuck:
            self._mend()
            self._problem(f"does not get further: {stuck}")
        self._outcome.left = self._faults
        return self._outcome

    def _attempt(self) -> int:
        """One start of the command, until it ends; returns its exit code."""
        ending = next((fault for fault in self._faults if fault.kind.ends), None)
        grace_s = ending.kind.grace_s if ending else GRACE_S
        allowed, intervals = {int(ExitCode.FINISHED), *self._after}, self._intervals
        if self._failing is None:
            self._after, self._intervals = set(), 2
        attempt = self._run.start(grace_s)
        self._outcome.attempts += 1
        row, self._family = None, []
        try:
            while (met := self._meet(attempt, grace_s)) is not None:
                row, kind = met, met.fault.kind
                allowed |= {int(code) for code in kind.codes}
                intervals = max(intervals, kind.intervals)
                if kind.ends:
                    break
                self._outlast(attempt, row)
            for _ in self._while_alive(attempt, LOOK_S):
                pass
            ended = attempt.ended()
        finally:
            attempt.kill()
        if row is not None and row.fault.kind.ends:
            if row.fault.phase is not Phase.ENDING and last_step(ended.log) < STEPS:
                allowed.discard(int(ExitCode.FINISHED))
            if allowed <= {int(code) for code in row.fault.kind.codes}:
                intervals = row.fault.kind.intervals
        self._note_end(ended, row, allowed, intervals * EVERY)
        return ended.code

    def _meet(self, attempt: Attempt, grace_s: float) -> Row | None:
        """Waits until the attempt is where the next fault belongs, and lets it happen there.

        Returns None where the attempt ends before, or can meet none of the faults any more.
        """
        phase = Phase.STARTING
        while attempt.alive:
            fault = next_fault(self._faults, phase, grace_s)
            if fault is None:
                return None
            self._pause(QUICK_LOOK_S if fault.phase in _BRIEF else LOOK_S)
            # Between two phases it is still in the one before.
            phase = self._run.phase(attempt, self._reference.files) or phase
            if not self._stands(attempt, fault, phase):
                continue
            if fault.phase not in _BRIEF:
                ending = fault.phase is Phase.ENDING
                self._pause(fault.delay * (ENDING_SPREAD_S if ending else SPREAD_S))
            with attempt.frozen():
                now = self._run.phase(attempt, self._reference.files)
                if now is not None and self._stands(attempt, fault, now):
                    self._faults.remove(fault)
                    return self._strike(attempt, fault)
        return None

    def _stands(self, attempt: Attempt, fault: Fault, phase: Phase) -> bool:
        kind = fault.kind
        return (
            phase is fault.phase
            and attempt.ready()
            and (kind.target is None or bool(attempt.process_of(kind.target)))
            and (kind.then != "damage" or len(self._run.committed()) >= 2)
        )

    def _strike(self, attempt: Attempt, fault: Fault) -> Row:
        kind = fault.kind
        row = Row(self._number, str(self._run.shape), fault, time.monotonic())
        self._outcome.rows.append(row)
        self._say(f"{kind.name}, {fault.phase.value}, after step {last_step(attempt.log)}")
        log_size = None if kind.ends else self._run.log_size()
        self._struck = Struck(row, log_size)
        if kind.mode is not Mode.FINE:
            assert self._proxy is not None
            self._proxy.change(kind.mode)
            if not kind.ends:
                self._failing = row
                self._after |= {int(code) for code in kind.codes}
                self._intervals = kind.intervals
        if kind.target is not None:
            self._family = attempt.process_of(Target.ALL)
            attempt.send(kind.target, kind.number)
            if kind.target is Target.LAUNCHER and not kind.message:
                # Its ranks may live a moment longer, and hold the lease.
                self._after.add(int(ExitCode.LEASE))
        if kind.then == "another":
            self._start_another(row)
        if kind.again_s is not None:
            self._send_again(attempt, fault, kind.again_s)
        return row

    def _send_again(self, attempt: Attempt, fault: Fault, after_s: float) -> None:
        # The launcher alone goes on: its ranks would save and end before the second signal.
        launcher = attempt.process_of(Target.LAUNCHER)[0]
        launcher.resume()
        self._pause(after_s)
        if attempt.alive:
            launcher.send_signal(fault.kind.number)

    def _start_another(self, row: Row) -> None:
        another = self._run.start(GRACE_S, beside=True)
        try:
            for _ in self._while_alive(another, LOOK_S):
                pass
            ended = another.ended()
        finally:
            another.kill()
        row.code, row.cause = ended.code, ended.ending.cause if ended.ending else ""
        for problem in problems_of(ended, {int(ExitCode.LEASE)}, True, STEPS):
            self._problem(problem, row)

    def _outlast(self, attempt: Attempt, row: Row) -> None:
        """Waits for the end of the fault and for the next checkpoint, or the attempt's end."""
        before = max(self._run.committed(), default=0)
        for _ in self._while_alive(attempt, LOOK_S):
            if row.saved_s is None and max(self._run.committed(), default=0) > before:
                row.saved_s = time.monotonic() - row.at
            if row.saved_s is not None and self._failing is None and row.step_s is not None:
                row.lost = 0
                return

    def _note_end(
        self, ended: Attempted, row: Row | None, allowed: Collection[int], most_lost: int
    ) -> None:
        if row is not None and row.fault.kind.ends:
            self._mend()
        if living := outliving(self._family, ORPHANS_S):
            self._problem(f"{len(living)} processes outlive their launcher", row)
        message = row is None or row.fault.kind.message
        for problem in problems_of(ended, allowed, message, most_lost):
            self._problem(problem, row)
        ending = ended.ending
        begun = resumed_at(ended.log)
        if begun is not None:
            self._count_lost(begun)
            self._reached = begun
        self._reached = max(self._reached, last_step(ended.log), (ending and ending.step) or 0)
        finished = ended.code == ExitCode.FINISHED
        if row is not None and (row.fault.kind.ends or not finished):
            row.code, row.cause = ended.code, ending.cause if ending else ""
            # What an attempt loses that never resumed was lost by the fault before.
            self._ended.append((row, 0 if begun is None else self._reached))
            if row.fault.kind.then == "damage":
                self._run.damage_newest()
            elif row.fault.kind.then == "move":
                self._run.move_lease()
        elif row is not None:
            row.lost = 0
        if self._struck is not None:
            if finished and self._struck.row.step_s is None:
                self._struck.row.step_s = time.monotonic() - self._struck.row.at
            self._struck.log_size = self._run.log_size()
        if finished:
            self._count_lost(STEPS)
            self._struck = None

    def _count_lost(self, begun: int) -> None:
        for row, reached in self._ended:
            row.lost = max(0, reached - begun)
            most = row.fault.kind.intervals * EVERY
            if row.lost > most:
                self._problem(f"{row.lost} steps lost, expected {most} at most", row)
        self._ended.clear()

    def _compare(self) -> None:
        made = self._run.weights()
        for name in ("tower", "decoder", "state"):
            if getattr(made, name) != getattr(self._reference, name):
                self._problem(f"the {name} is not that of a run that was never cut")

    def _problem(self, text: str, row: Row | None = None) -> None:
        where = "" if row is None else f" after {row.fault.kind.name}, {row.fault.phase.value}"
        problem = f"run {self._number} ({self._run.shape}){where}: {text}"
        self._outcome.problems.append(problem)
        self._say(f"PROBLEM: {problem}")

    def _mend(self) -> None:
        if self._proxy is not None:
            self._proxy.change(Mode.FINE)
        self._failing = self._mend_at = None

    def _while_alive(self, attempt: Attempt, look_s: float) -> Iterator[None]:
        while attempt.alive:
            yield
            self._pause(look_s)

    def _pause(self, seconds: float) -> None:
        """Waits, and meanwhile ends what is over and sees what has come. Raises Stuck."""
        end = time.monotonic() + seconds
        while True:
            now = time.monotonic()
            self._mend_in_time(now)
            size = self._run.log_size()
            if size != self._grown[0]:
                self._grown = (size, now)
                self._see_step()
            elif now - self._grown[1] > FURTHER_S:
                raise Stuck(f"nothing new in its log for {FURTHER_S:.0f} s")
            if now >= end:
                return
            time.sleep(min(LOOK_S, end - now))

    def _mend_in_time(self, now: float) -> None:
        if self._failing is None or self._proxy is None:
            return
        if self._mend_at is None and self._proxy.met:
            self._failing.at = now
            self._mend_at = now + self._failing.fault.seconds
        if self._mend_at is not None and now >= self._mend_at:
            self._mend()

    def _see_step(self) -> None:
        struck = self._struck
        if struck is None or struck.log_size is None:
            return
        if first_step(self._run.log_since(struck.log_size)):
            struck.row.step_s = time.monotonic() - struck.row.at
            self._struck = None
