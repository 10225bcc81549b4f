"""What is delivered, kept, dropped and warned about by an outbox."""

from __future__ import annotations

import threading
import time

import pytest

from arlow_trainer.storage.outbox import Closeable, Outbox
from support.waiting import wait_until


class Receiver:
    """Takes items, refuses them while `refusing`, and waits while `free` is not set."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.warnings: list[str] = []
        self.tries = 0
        self.refusing = False
        self.free = threading.Event()
        self.free.set()

    def take(self, batch: list[int]) -> None:
        self.tries += 1
        assert self.free.wait(60)
        if self.refusing:
            raise OSError("no answer")
        self.batches.append(batch)

    @property
    def taken(self) -> list[int]:
        return [item for batch in self.batches for item in batch]


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


def outbox(receiver: Receiver, max_items: int = 100, **options: object) -> Outbox[int]:
    return Outbox("things", receiver.take, receiver.warnings.append, max_items=max_items, **options)


def test_everything_is_delivered_in_order(receiver: Receiver) -> None:
    with outbox(receiver) as box:
        for item in range(50):
            box.put(item)
    assert receiver.taken == list(range(50))
    assert receiver.warnings == []
    assert not any(thread.name == "things" for thread in threading.enumerate())


@pytest.mark.parametrize("max_batch", [1, 3])
def test_batches_are_as_large_as_allowed(receiver: Receiver, max_batch: int) -> None:
    receiver.free.clear()
    with outbox(receiver, max_batch=max_batch) as box:
        for item in range(10):
            box.put(item)
        receiver.free.set()
    assert receiver.taken == list(range(10))
    assert max(len(batch) for batch in receiver.batches) == max_batch


def test_an_interval_gathers_what_comes(receiver: Receiver) -> None:
    with outbox(receiver, interval_s=60.0) as box:
        box.put(0)
        wait_until(lambda: receiver.batches)
        for item in (1, 2, 3):
            box.put(item)
    assert receiver.batches == [[0], [1, 2, 3]]


def test_what_is_refused_is_tried_again_with_one_warning(receiver: Receiver) -> None:
    receiver.refusing = True
    with outbox(receiver, interval_s=0.01) as box:
        for outage in (1, 2):
            receiver.refusing, before = True, receiver.tries
            box.put(outage)
            wait_until(lambda before=before: receiver.tries >= before + 3)
            warning = "things cannot be written to the store: no answer"
            assert receiver.warnings == [warning] * outage
            receiver.refusing = False
            wait_until(lambda outage=outage: receiver.taken == list(range(1, outage + 1)))
    assert receiver.taken == [1, 2]


def test_at_the_limit_the_oldest_are_dropped(receiver: Receiver) -> None:
    receiver.refusing = True
    with outbox(receiver, max_items=3, interval_s=60.0) as box:
        for item in range(5):
            assert box.full is (item >= 3)
            box.put(item)
        wait_until(lambda: receiver.tries)
        receiver.refusing = False
    assert receiver.taken[-3:] == [2, 3, 4]
    assert 0 not in receiver.taken


def test_what_is_dropped_is_counted_once_it_is_over(receiver: Receiver) -> None:
    receiver.free.clear()
    with outbox(receiver, max_items=3, where="the service") as box:
        box.put(0)
        wait_until(lambda: receiver.tries)
        for item in range(1, 8):
            box.put(item)
        assert receiver.warnings == ["the service does not keep up: the oldest things are dropped"]
        receiver.free.set()
        wait_until(lambda: len(receiver.taken) == 4)
    assert receiver.taken == [0, 5, 6, 7], "the first was delivered all the same"
    assert receiver.warnings[1:] == ["4 things were dropped before the service took others"]


def test_what_was_dropped_during_its_delivery_takes_nothing_else_along(receiver: Receiver) -> None:
    receiver.free.clear()
    with outbox(receiver, max_items=2) as box:
        box.put(0)
        wait_until(lambda: receiver.tries)
        for item in (1, 2, 3):
            box.put(item)  # 0 is dropped while it is being delivered, and then 1
        receiver.free.set()
    assert receiver.taken == [0, 2, 3]


def test_an_idle_outbox_calls_at_every_interval(receiver: Receiver) -> None:
    with outbox(receiver, interval_s=0.01, idle_too=True):
        wait_until(lambda: receiver.tries >= 3)
    assert receiver.taken == []


def test_a_receiver_that_hangs_does_not_delay_the_end(receiver: Receiver) -> None:
    receiver.free.clear()
    box = outbox(receiver)
    for item in range(3):
        box.put(item)
    begun = time.monotonic()
    box.close(timeout_s=0.2)
    assert time.monotonic() - begun < 10
    assert receiver.warnings == ["the last things (3) did not reach the store within 0 s"]
    receiver.free.set()


def test_an_end_during_an_outage_says_what_is_lost(receiver: Receiver) -> None:
    receiver.refusing = True
    with outbox(receiver) as box:
        box.put(1)
    assert receiver.warnings == [
        "things cannot be written to the store: no answer",
        "the last things (1) did not reach the store",
    ]


def test_a_closeable_is_closed_by_a_failure_too() -> None:
    class Door(Closeable):
        closed = False

        def close(self) -> None:
            self.closed = True

    door = Door()
    with pytest.raises(ZeroDivisionError), door:
        1 / 0  # noqa: B018
    assert door.closed
