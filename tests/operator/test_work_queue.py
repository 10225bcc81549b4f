"""Keys wait once and never run beside themselves."""

from __future__ import annotations

import asyncio

from arlow_operator.work_queue import WorkQueue


async def taken(queue: WorkQueue[str], within: float = 0.05) -> str | None:
    try:
        return await asyncio.wait_for(queue.take(), within)
    except TimeoutError:
        return None


def test_a_key_waits_once_and_in_order() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue()
        for key in "abaab":
            queue.add(key)
        assert len(queue) == 2
        assert [await taken(queue), await taken(queue), await taken(queue)] == ["a", "b", None]

    asyncio.run(story())


def test_a_key_that_runs_runs_once_more_when_it_is_done() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        assert await taken(queue) == "a"
        queue.add("a")
        queue.add("a")
        assert await taken(queue) is None
        queue.done("a")
        assert await taken(queue) == "a"
        queue.done("a")
        assert await taken(queue) is None

    asyncio.run(story())


def test_a_key_comes_after_its_time_and_sooner_when_it_is_added() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add_after("late", 0.1)
        queue.add_after("late", 30)
        queue.add_after("soon", 30)
        queue.add("soon")
        assert await taken(queue) == "soon"
        assert await taken(queue, 5) == "late"
        queue.done("soon")
        assert await taken(queue) is None

    asyncio.run(story())


def test_an_earlier_time_replaces_a_later_one() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add_after("a", 30)
        queue.add_after("a", 0.01)
        assert await taken(queue, 5) == "a"

    asyncio.run(story())
