"""What the launcher and the ranks of one attempt share: a temporary folder on this machine.

All of it outlives a rank that is killed.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from arlow_trainer.config import ArlowPretrain, validate
from arlow_trainer.run.options import TrainOptions

_NUMBER = struct.Struct("=q")
_NONE = -1


@dataclass(frozen=True)
class Reason:
    """Why a rank ended, as that rank reports it.

    `time` is that of `time.monotonic`, which all processes of a machine share. `second_hand`: it
    only reports another rank's failure.
    """

    rank: int
    exit_code: int
    message: str
    time: float
    second_hand: bool = False


class Attempt:
    """The folder of an attempt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, run: ArlowPretrain, options: TrainOptions) -> None:
        """Writes what the ranks read at their start; called by the launcher."""
        # Fields that the user did not set stay unset: advice depends on it.
        manifest = run.model_dump_json(by_alias=True, exclude_unset=True)
        (self.folder / "run.json").write_text(manifest)
        (self.folder / "options.json").write_text(json.dumps(asdict(options)))
        (self.folder / "launcher").write_text(str(os.getpid()))
        (self.folder / "began").write_text(str(time.monotonic()))
        self.logs.mkdir()
        (self.folder / "progress").write_bytes(2 * _NUMBER.pack(_NONE))

    def run(self) -> ArlowPretrain:
        """Returns the run that `begin` was given."""
        return validate(json.loads((self.folder / "run.json").read_text()), "the run")

    def options(self) -> TrainOptions:
        """Returns the options that `begin` was given."""
        return TrainOptions(**json.loads((self.folder / "options.json").read_text()))

    @property
    def logs(self) -> Path:
        """The folder of the processes' logs."""
        return self.folder / "logs"

    @property
    def launcher(self) -> int:
        """The launcher's process number."""
        return int((self.folder / "launcher").read_text())

    def use(self, gpus: bool) -> None:
        """Says whether each rank computes on a GPU; called before ranks start."""
        self._write("gpus", str(int(gpus)))

    @property
    def gpus(self) -> bool:
        """Whether each rank computes on a GPU."""
        return (self.folder / "gpus").read_text() == "1"

    def say(self, verdict: str) -> None:
        """Records why the attempt fails, as the launcher judges it."""
        self._write("verdict", verdict)

    def verdict(self) -> str | None:
        """Returns what `say` was given; None while the launcher knows of no failure."""
        try:
            return (self.folder / "verdict").read_text()
        except FileNotFoundError:
            return None

    def begin_steps(self) -> None:
        """Says that the run has loaded, and from now on has something to save in a stop."""
        self._write("steps", "")

    @property
    def loading(self) -> bool:
        """Whether there is nothing to save yet."""
        return not (self.folder / "steps").exists()

    @property
    def began(self) -> float:
        """When the attempt began, by `time.monotonic`, which all processes of a machine share."""
        return float((self.folder / "began").read_text())

    def keep_logs_as(self, number: int) -> None:
        """Gives the attempt its number; from then on its logs are stored."""
        self._write("number", str(number))

    def number(self) -> int | None:
        """Returns the attempt's number; None before `keep_logs_as`."""
        try:
            return int((self.folder / "number").read_text())
        except FileNotFoundError:
            return None

    @property
    def stopped_at(self) -> float | None:
        """When the run was asked to stop, by `time.monotonic`; None if it was not."""
        try:
            return float((self.folder / "stop").read_text())
        except FileNotFoundError:
            return None

    def stop(self, at: float | None) -> None:
        """Tells ranks that have not started yet that the run was asked to stop."""
        self._write("stop", str(time.monotonic() if at is None else at))

    def report(self, rank: int, exit_code: int, message: str, second_hand: bool = False) -> None:
        """Records why a rank ends."""
        reason = Reason(rank, exit_code, message, time.monotonic(), second_hand)
        self._write(f"reason-{rank}.json", json.dumps(asdict(reason)))

    def close_reports(self) -> None:
        """Says that rank 0 has written the run's last status and events."""
        self._write("reported", "")

    @property
    def reports_closed(self) -> bool:
        """Whether rank 0 has written the run's last status and events."""
        return (self.folder / "reported").exists()

    def has_reported(self, rank: int) -> bool:
        """Whether a rank has recorded why it ends."""
        return (self.folder / f"reason-{rank}.json").exists()

    def reasons(self) -> list[Reason]:
        """Returns why ranks ended, the first first."""
        found = [
            Reason(**json.loads(path.read_text())) for path in self.folder.glob("reason-*.json")
        ]
        return sorted(found, key=lambda reason: reason.time)

    def progress(self) -> AttemptProgress:
        """Returns the attempt's progress, to be read or written."""
        return AttemptProgress(self.folder / "progress")

    def _write(self, name: str, text: str) -> None:
        # Whole or not at all: another process may read meanwhile, and this one may be killed.
        part = self.folder / f".{name}"
        part.write_text(text)
        os.replace(part, self.folder / name)


class AttemptProgress:
    """Steps done and the newest checkpoint known to be in the store; rank 0 writes it.

    In shared memory: a step costs no system call, and a killed rank leaves it behind.
    """

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 2 * _NUMBER.size)

    @property
    def step(self) -> int | None:
        """Steps that were done; None where training has not begun."""
        return self._read(0)

    @step.setter
    def step(self, value: int) -> None:
        _NUMBER.pack_into(self._memory, 0, value)

    @property
    def saved(self) -> int | None:
        """Step of the newest checkpoint known to be in the store; None where none is."""
        return self._read(_NUMBER.size)

    @saved.setter
    def saved(self, value: int) -> None:
        _NUMBER.pack_into(self._memory, _NUMBER.size, value)

    def _read(self, offset: int) -> int | None:
        (value,) = _NUMBER.unpack_from(self._memory, offset)
        return None if value == _NONE else int(value)
