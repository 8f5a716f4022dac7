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
    ended = []

    async def interrupt():
        raise KeyboardInterrupt

    async def main():
        task = asyncio.create_task(interrupt())
        try:
            await asyncio.sleep(10)
        finally:
            ended.append(task.done())

    with pytest.raises(KeyboardInterrupt):
        PausingLoop().run(main)
    assert ended == [True]


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
