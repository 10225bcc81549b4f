"""What is done to a run, where in its life, and how it may then end. All of it is pure."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random

from arlow_trainer.config.errors import ExitCode

GRACE_S = 60.0
FAULTS_PER_RUN = 10
MAX_ENDING = 2
"""Of a run's faults, those while it ends: it makes no more steps there."""


class Phase(Enum):
    """Where a run is, from the outside: by its log and by the files in its URL."""

    STARTING = "starting"
    LOADING = "loading"
    STEPPING = "stepping"
    SAVING = "saving"
    COMMITTING = "committing"
    PRUNING = "pruning"
    ENDING = "ending"


class Mode(Enum):
    """What the way to the store does."""

    FINE = "fine"
    AWAY = "away"
    SLOW = "slow"
    BUSY = "busy"
    FORBIDDEN = "forbidden"
    CUT = "cut"
    SILENT = "silent"


class Target(Enum):
    """Which process a signal is sent to."""

    FIRST_RANK = "rank 0"
    SECOND_RANK = "rank 1"
    WORKER = "worker"
    LAUNCHER = "launcher"
    ALL = "all"


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        name: in tables.
        sees: what the user sees of it.
        phases: where it can be met.
        codes: exit codes that the attempt may end with; the launcher's signal below zero.
        target, number: the signal, if it is one, and who gets it.
        again_s: after how many seconds the signal is sent again; None sends it once.
        mode: what the way to the store does meanwhile.
        ends: whether the attempt ends in any case.
        message: whether the process that writes the termination message outlives it.
        then: what else is done: `damage` the newest checkpoint, `move` the lease to another
            machine, start `another` attempt.
        ranks: how many it needs at least.
        workers, remote: whether it needs decoding processes, or a store behind the proxy.
        grace_s: the attempt's grace period.
        intervals: how many intervals between checkpoints it may cost.
        share: how often it is drawn, compared with others.
    """

    name: str
    sees: str
    phases: Sequence[Phase]
    codes: frozenset[int]
    target: Target | None = None
    number: signal.Signals = signal.SIGKILL
    again_s: float | None = None
    mode: Mode = Mode.FINE
    ends: bool = True
    message: bool = True
    then: str = ""
    ranks: int = 1
    workers: bool = False
    remote: bool = False
    grace_s: float = GRACE_S
    intervals: int = 2
    share: float = 1.0


@dataclass(frozen=True)
class Shape:
    """How a run is started."""

    remote: bool
    ranks: int
    workers: int

    def __str__(self) -> str:
        where = "S3" if self.remote else "local"
        ranks = "1 rank" if self.ranks == 1 else f"{self.ranks} ranks"
        return f"{where}, {ranks}, {self.workers} decoding each"


@dataclass(frozen=True)
class Fault:
    """One fault: its kind, where, and two drawn numbers.

    Attributes:
        delay: between 0 and 1: how far into the phase.
        seconds: how long the way to the store is disturbed.
    """

    kind: Kind
    phase: Phase
    delay: float
    seconds: float


@dataclass(frozen=True)
class RunPlan:
    """A run and its faults in order, those of its end last."""

    shape: Shape
    faults: Sequence[Fault]


_ALL = tuple(Phase)
_STEPS = (Phase.LOADING, Phase.STEPPING, Phase.SAVING, Phase.COMMITTING, Phase.PRUNING)
_LATER = (*_STEPS, Phase.ENDING)
_STORE = (
    Phase.STARTING,
    Phase.LOADING,
    Phase.SAVING,
    Phase.COMMITTING,
    Phase.PRUNING,
    Phase.ENDING,
)
_KILLED = frozenset({-signal.SIGKILL})
_OF_STORE = frozenset({ExitCode.STORE})

KINDS = (
    Kind(
        "rank 0 killed",
        "`rank 0 was killed by SIGKILL`, with the remedy",
        _LATER,
        frozenset({ExitCode.KILLED}),
        Target.FIRST_RANK,
        ranks=2,
    ),
    Kind(
        "rank 1 killed",
        "`rank 1 was killed by SIGKILL`, with the remedy",
        _LATER,
        frozenset({ExitCode.KILLED}),
        Target.SECOND_RANK,
        ranks=2,
    ),
    Kind(
        "rank crashes (SIGSEGV)",
        "`rank 1 crashed with SIGSEGV; see the log above`",
        _STEPS,
        frozenset({ExitCode.INTERNAL}),
        Target.SECOND_RANK,
        signal.SIGSEGV,
        ranks=2,
    ),
    Kind(
        "decoding process killed",
        "`a decoding process was killed by SIGKILL`, and to lower `data.workers`",
        (Phase.STEPPING, Phase.SAVING, Phase.COMMITTING, Phase.PRUNING),
        frozenset({ExitCode.KILLED}),
        Target.WORKER,
        workers=True,
    ),
    Kind(
        "launcher killed",
        "nothing: nobody is left to say it",
        _ALL,
        _KILLED,
        Target.LAUNCHER,
        message=False,
    ),
    Kind(
        "machine lost",
        "nothing: nobody is left to say it",
        _ALL,
        _KILLED,
        Target.ALL,
        message=False,
    ),
    Kind(
        "machine lost, resumed on another",
        "the new attempt waits whether the lease's holder still lives, and names it",
        (Phase.STEPPING,),
        _KILLED,
        Target.ALL,
        message=False,
        then="move",
        share=0.35,
    ),
    Kind(
        "machine lost, newest checkpoint damaged",
        "`passing over checkpoint-...`, with the file",
        (Phase.STEPPING,),
        _KILLED,
        Target.ALL,
        message=False,
        then="damage",
        intervals=3,
    ),
    Kind(
        "SIGTERM",
        "`stopped at step ... as asked; everything is saved in ...`",
        _ALL,
        frozenset({ExitCode.INTERRUPTED}),
        Target.LAUNCHER,
        signal.SIGTERM,
        intervals=0,
        share=2.0,
    ),
    Kind(
        "SIGTERM, grace period of 1 s",
        "as above, or that the grace period was over before all was saved",
        _LATER,
        frozenset({ExitCode.INTERRUPTED}),
        Target.LAUNCHER,
        signal.SIGTERM,
        grace_s=1.0,
    ),
    Kind(
        "second SIGTERM",
        "`ended at once by a second signal (SIGTERM)`",
        _STEPS,
        frozenset({ExitCode.INTERRUPTED}),
        Target.LAUNCHER,
        signal.SIGTERM,
        again_s=0.5,
    ),
    Kind(
        "second attempt beside the first",
        "the second: `... is in use by ... which is alive`; the first: nothing",
        (Phase.STEPPING,),
        frozenset(),
        ends=False,
        then="another",
        share=0.7,
    ),
    *(
        Kind(
            f"store {name}",
            sees,
            _STORE,
            codes,
            mode=mode,
            ends=False,
            remote=True,
            # Three saves in a row may fail for good.
            intervals=4,
        )
        for mode, name, sees, codes in (
            (Mode.AWAY, "away", "`trying again for up to 5 minutes`", _OF_STORE),
            (Mode.SLOW, "slow (1 s an answer)", "longer saves", _OF_STORE),
            (Mode.BUSY, "busy (503)", "`trying again for up to 5 minutes`", _OF_STORE),
            (
                Mode.FORBIDDEN,
                "refusing (403)",
                "`checkpoint-... is not saved`; after three in a row the run ends and says so",
                frozenset({ExitCode.CREDENTIALS}),
            ),
            (Mode.CUT, "cutting connections", "`trying again for up to 5 minutes`", _OF_STORE),
            (Mode.SILENT, "silent", "nothing, or a save that takes as much longer", _OF_STORE),
        )
    ),
    *(
        Kind(
            f"SIGTERM, grace period of 8 s, store {mode.value}",
            "`stopped at step ... as asked, without its checkpoint: ...`",
            (Phase.STEPPING, Phase.SAVING, Phase.COMMITTING, Phase.ENDING),
            frozenset({ExitCode.INTERRUPTED}),
            Target.LAUNCHER,
            signal.SIGTERM,
            mode=mode,
            remote=True,
            grace_s=8.0,
        )
        for mode in (Mode.AWAY, Mode.SILENT)
    ),
)

SHAPES = (
    Shape(remote=True, ranks=2, workers=0),
    Shape(remote=False, ranks=1, workers=1),
    Shape(remote=True, ranks=1, workers=0),
    Shape(remote=False, ranks=2, workers=0),
    Shape(remote=True, ranks=1, workers=1),
    Shape(remote=True, ranks=2, workers=1),
)


def fits(kind: Kind, shape: Shape) -> bool:
    """Whether a fault can be met by a run of a shape."""
    return (
        shape.ranks >= kind.ranks
        and (shape.workers > 0 or not kind.workers)
        and (shape.remote or not kind.remote)
    )


def next_fault(faults: Iterable[Fault], phase: Phase | None, grace_s: float) -> Fault | None:
    """Returns the first of the faults that an attempt can still meet.

    Args:
        faults: in order.
        phase: where the attempt is.
        grace_s: the attempt's grace period.
    """
    for fault in faults:
        passed = phase not in (Phase.STARTING, fault.phase) and (
            fault.phase is Phase.STARTING or fault.phase is Phase.LOADING or phase is Phase.ENDING
        )
        if not passed and (not fault.kind.ends or fault.kind.grace_s == grace_s):
            return fault
    return None


def plan_runs(seed: int, count: int) -> list[RunPlan]:
    """Returns runs with `count` faults in all, the same for the same seed.

    Each fault is drawn among those that were drawn least: first of all kinds, then of the kind's
    phases.
    """
    draw = Random(seed)
    kinds: Counter[str] = Counter()
    places: Counter[tuple[str, Phase]] = Counter()
    phases: Counter[Phase] = Counter()
    runs: list[RunPlan] = []
    left = count
    while left:
        shape = SHAPES[len(runs) % len(SHAPES)]
        faults: list[Fault] = []
        ending = 0
        for _ in range(min(FAULTS_PER_RUN, left)):
            possible = [
                (kind, phase)
                for kind in KINDS
                if fits(kind, shape)
                for phase in kind.phases
                if phase is not Phase.ENDING or ending < MAX_ENDING
            ]
            draw.shuffle(possible)
            kind, phase = min(
                possible,
                key=lambda one: (
                    kinds[one[0].name] / one[0].share,
                    places[one[0].name, one[1]],
                    phases[one[1]],
                ),
            )
            kinds[kind.name] += 1
            places[kind.name, phase] += 1
            phases[phase] += 1
            ending += phase is Phase.ENDING
            faults.append(Fault(kind, phase, draw.random(), draw.uniform(2.0, 8.0)))
        draw.shuffle(faults)
        faults.sort(key=lambda fault: fault.phase is Phase.ENDING)
        runs.append(RunPlan(shape, faults))
        left -= len(faults)
    return runs
