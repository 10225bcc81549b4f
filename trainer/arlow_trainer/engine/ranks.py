"""The ranks of a run: joining them, and agreeing on outcomes so that none waits for a dead one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, TCPStore
from torch.distributed import distributed_c10d

from arlow_trainer.config.errors import ArlowError, ConfigError

T = TypeVar("T")

TIMEOUT = timedelta(minutes=60)
"""Of every collective, on the host and on devices, and of the ranks' key-value store: longer than
any legitimate wait, such as a full checkpoint on a slow store. Of a rank that has failed the
launcher knows at once; this ends a run in which all wait."""


class Ranks:
    """This process among the ranks of a run.

    Attributes:
        rank, size: this rank and how many there are.
        here: how many of them are on this machine.
        device: the device this rank computes on.
    """

    def __init__(self) -> None:
        """Joins the process group that the environment describes (RANK, WORLD_SIZE, ...).

        Raises ConfigError when there are more ranks than GPUs, on a machine with GPUs.
        """
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        cuda = torch.cuda.is_available()
        self.device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
        if cuda:
            if local_rank >= torch.cuda.device_count():
                raise ConfigError(
                    f"this machine has {torch.cuda.device_count()} GPUs and each takes one rank, "
                    f"so rank {local_rank} has none; start fewer with --ranks, or leave it out"
                )
            torch.cuda.set_device(self.device)
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.here = int(os.environ.get("LOCAL_WORLD_SIZE", self.size))
        dist.init_process_group(
            "nccl" if cuda else "gloo",
            timeout=TIMEOUT,
            store=_key_value_store(self.rank, self.size),
            rank=self.rank,
            world_size=self.size,
        )
        self._store = dist.distributed_c10d._get_default_store()
        # Outcomes, flags and sums are host data: they never wait for a GPU. All of ours go through
        # this group, and DeepSpeed makes one of its own, so that the default one never connects:
        # NCCL would take hundreds of MB of a device for it.
        self._host = dist.new_group(backend="gloo", timeout=TIMEOUT)

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    @property
    def first_here(self) -> bool:
        """Whether this is the first rank on its machine."""
        return int(os.environ.get("LOCAL_RANK", "0")) == 0

    def agree(self, action: Callable[[], T]) -> T:
        """Runs an action on every rank; when it fails on any, every rank raises that failure.

        Of several it is the first rank's; one that only reports another rank's failure (it has an
        attribute `second_hand` that is true) gives way to that. So has what the other ranks raise.
        """
        value, failure = _attempt(action)
        # A vote first: it is all that an action which succeeds costs.
        if self.any(failure is not None)[0]:
            found = [
                # What was gathered is a copy; this rank's own still has its traceback.
                failure if failure is not None and rank == self.rank else failed
                for rank, failed in enumerate(self.gather(failure))
                if failed is not None
            ]
            chosen = min(found, key=lambda failed: getattr(failed, "second_hand", False))
            raise chosen if chosen is failure else _second_hand(chosen)
        return value  # type: ignore[return-value]

    def from_first(self, action: Callable[[], T]) -> T:
        """Runs an action on rank 0 and returns its value, or raises its failure, on every rank."""
        outcome: list[Any] = [_attempt(action) if self.first else None]
        dist.broadcast_object_list(outcome, src=0, group=self._host)
        value, failure = outcome[0]
        if failure is not None:
            raise failure if self.first else _second_hand(failure)
        return value  # type: ignore[no-any-return]

    def gather(self, value: T) -> list[T]:
        """Returns every rank's value, in the order of ranks, on every rank."""
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._host)
        return values

    def any(self, *flags: bool) -> list[bool]:
        """Returns for each flag whether any rank raised it. Does not wait for the device."""
        votes = torch.tensor([int(flag) for flag in flags])
        dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=self._host)
        return [bool(vote) for vote in votes.tolist()]

    def sum(self, values: Sequence[float]) -> list[float]:
        """Returns the sums of all ranks' values, on every rank."""
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self._host)
        sums: list[float] = total.tolist()
        return sums

    def spread(self, value: float) -> float:
        """Returns the highest value of all ranks less the lowest."""
        bounds = torch.tensor([value, -value], dtype=torch.float64)
        dist.all_reduce(bounds, op=dist.ReduceOp.MAX, group=self._host)
        return float(bounds.sum())

    def post(self, key: str, value: str = "") -> None:
        """Sets a key's value for every rank to see, from any thread and without a collective."""
        self._store.set(key, value)

    def has(self, key: str) -> bool:
        """Whether any rank has posted a value under `key`."""
        return bool(self._store.check([key]))

    def get(self, key: str) -> str:
        """Returns the value last posted under `key`, where `has` says that there is one."""
        return bytes(self._store.get(key)).decode()

    def delete(self, key: str) -> None:
        """Removes a key; one that is not there is no error."""
        self._store.delete_key(key)

    def wait(self) -> None:
        """Waits for every rank."""
        dist.barrier(group=self._host)

    def leave(self, failed: bool = False) -> None:
        """Leaves the process group.

        A rank that has `failed` leaves it to the end of its process: with NCCL destroying a group
        is a collective, in which it would wait for ranks that wait for it.
        """
        if failed:
            return
        # The last references: gloo's threads end here, and not amid the interpreter's own end,
        # where one that still holds a tensor would abort the process.
        del self._host, self._store
        dist.destroy_process_group()


def set_timeouts() -> None:
    """Gives every group its members' one `TIMEOUT`; those that DeepSpeed makes have another."""
    for group in list(distributed_c10d._world.pg_map):
        distributed_c10d._set_pg_timeout(TIMEOUT, group)


def _key_value_store(rank: int, ranks: int) -> PrefixStore:
    """Returns the ranks' key-value store, which rank 0 serves.

    It does so on the launcher's socket, where ARLOW_STORE_SOCKET is its descriptor.
    """
    descriptor = os.environ.get("ARLOW_STORE_SOCKET")
    store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        ranks,
        is_master=rank == 0,
        timeout=TIMEOUT,
        # Rank 0 would wait for those that failed before they came here.
        wait_for_workers=False,
        master_listen_fd=int(descriptor) if descriptor else None,
    )
    return PrefixStore("default_pg", store)


def _second_hand(failure: BaseException) -> BaseException:
    """Marks another rank's failure, so that the run's message names the rank that failed."""
    vars(failure)["second_hand"] = True
    return failure


def _attempt(action: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    try:
        return action(), None
    except ArlowError as error:
        return None, error
    except Exception as error:
        # Other ranks get only the message, this one keeps the traceback.
        plain = RuntimeError(f"{type(error).__name__}: {error}")
        plain.__cause__ = error
        return None, plain
