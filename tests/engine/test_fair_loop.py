"""Timers keep their order, with turns between them, however long a turn takes."""

from __future__ import annotations

import asyncio
import time

from asynctest_kit.engine.fair_loop import FairLoop


async def _passed_on(times):
    for _ in range(times):
        await asyncio.get_running_loop().create_task(asyncio.sleep(0))


async def _time_out(seen):
    await asyncio.sleep(0.01)
    await _passed_on(2)
    seen.append("timed out")


async def _look(seen):
    await asyncio.sleep(0.02)
    seen.append("looked")


async def _neighbour():
    while True:
        time.sleep(0.015)  # noqa: ASYNC251  # a turn that takes long
        await asyncio.sleep(0)


async def _beside_a_busy_neighbour():
    seen = []
    neighbour = asyncio.create_task(_neighbour())
    await asyncio.gather(_time_out(seen), _look(seen))
    neighbour.cancel()
    return seen


def test_what_a_timer_begins_has_its_turns_before_a_later_timer():
    with asyncio.Runner(loop_factory=FairLoop) as runner, runner.get_loop().shared():
        assert runner.run(_beside_a_busy_neighbour()) == ["timed out", "looked"]


async def _blocked():
    loop = asyncio.get_running_loop()
    time.sleep(0.05)  # noqa: ASYNC251  # as above
    await asyncio.sleep(0)
    return time.monotonic() - loop.time()


def test_what_it_falls_behind_is_over_when_tests_run_alone():
    with asyncio.Runner(loop_factory=FairLoop) as runner:
        with runner.get_loop().shared():
            assert runner.run(_blocked()) > 0.04
        assert abs(time.monotonic() - runner.get_loop().time()) < 0.01
