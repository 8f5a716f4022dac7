"""The loop goes on, whatever a task raises through it."""

from __future__ import annotations

import asyncio

import pytest

from asynctest_kit.engine.collection import Parameter
from asynctest_kit.engine.pausing_loop import PausingLoop


def test_system_exit_of_a_task_reaches_who_awaits_it_and_ends_nothing():
    async def leave():
        raise SystemExit(2)

    async def main():
        with pytest.raises(SystemExit):
            await asyncio.create_task(leave())
        await asyncio.sleep(0)
        return "went on"

    assert PausingLoop().run(main) == "went on"


def test_keyboard_interrupt_of_a_task_lets_the_main_coroutine_clean_up():
    ended, tasks = [], []

    async def interrupt():
        raise KeyboardInterrupt

    async def main():
        task = asyncio.create_task(interrupt())
        tasks.append(task)
        try:
            await asyncio.sleep(10)
        finally:
            ended.append(task.done())

    with pytest.raises(KeyboardInterrupt):
        PausingLoop().run(main)
    assert ended == [True]
    assert isinstance(tasks[0].exception(), KeyboardInterrupt)  # looked at, so that no collector complains of it later


class Awkward:
    """A parameter that raises wherever it can."""

    __hash__ = object.__hash__

    def __eq__(self, other):
        raise ValueError("not comparable")

    def __repr__(self):
        raise ValueError("not shown")


def test_parameters_are_one_only_if_equal():
    one, other = Awkward(), Awkward()
    assert Parameter([1], 0, None).key() != Parameter([1, 2], 1, None).key()
    assert Parameter("a", 0, None).key() == Parameter("a", 3, None).key()
    assert Parameter(1, 0, None).key() != Parameter(True, 1, None).key()
    assert Parameter(one, 0, None).key() == Parameter(one, 0, None).key()
    assert Parameter(one, 0, None).key() != Parameter(other, 0, None).key()


def test_who_is_waited_for_goes_outside_at_once_and_others_wait_for_their_turn():
    loop = PausingLoop()
    order = []

    async def main():
        async with asyncio.TaskGroup() as group:
            started = asyncio.Event()

            async def first():
                started.set()
                await asyncio.sleep(0)
                await asyncio.gather(needed, asyncio.sleep(0))

            async def second(owner):
                await started.wait()
                await loop.outside(lambda: order.append(owner), owner)

            stranger = group.create_task(second("stranger"))
            needed = group.create_task(second("needed"))
            await loop.outside(lambda: (loop.inside(first, ["needed"]), order.append("first")), "first")
            await stranger

    loop.run(main)
    assert order == ["needed", "first", "stranger"]


def test_a_visit_gives_up_its_turn_when_it_is_cancelled():
    loop = PausingLoop()
    order = []

    async def main():
        async def cancel_the_waiting():
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])

        waiting = asyncio.create_task(loop.outside(lambda: order.append("waiting"), "waiting"))
        await loop.outside(lambda: loop.inside(cancel_the_waiting, []), "first")
        await loop.outside(lambda: order.append("last"), "last")
        return waiting.cancelled()

    assert loop.run(main)
    assert order == ["last"]
