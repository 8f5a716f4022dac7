"""Held resources: growing, waiting, handing over, running out."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from asynctest_kit.errors import IsolationError
from asynctest_kit.isolation.slots import Slots, SlotsExhausted

pytestmark = pytest.mark.anyio


class Source:
    """Makes numbers, as many as it has, when its gate is open."""

    def __init__(self, most=1000):
        self.gate = asyncio.Event()
        self.gate.set()
        self.most = most
        self.made = itertools.count()
        self.alive = set()
        self.closed = []

    async def make(self):
        await self.gate.wait()
        if len(self.alive) >= self.most:
            raise SlotsExhausted("no more numbers: ask for fewer")

        number = next(self.made)
        self.alive.add(number)
        return number

    async def close(self, number):
        self.alive.discard(number)
        self.closed.append(number)

    def slots(self, limit=1000, ahead=None):
        return Slots(self.make, close=self.close, usable=lambda number: number in self.alive, limit=limit, ahead=ahead)


async def test_idle_one_is_taken_before_another_is_made():
    source = Source()
    async with source.slots() as slots:
        first = await slots.take()
        slots.give_back(first)
        assert await slots.take() == first
        slots.give_back(first)
    assert source.closed == [first]


async def test_closed_while_idle_is_not_handed_out():
    source = Source()
    async with source.slots(limit=1) as slots:
        first = await slots.take()
        slots.give_back(first)
        source.alive.clear()
        second = await slots.take()
        assert second != first
        slots.give_back(second)


async def test_limit_is_kept_and_discarding_makes_room():
    source = Source()
    async with source.slots(limit=2) as slots:
        held = [await slots.take(), await slots.take()]
        waiting = asyncio.ensure_future(slots.take())
        await asyncio.sleep(0)
        assert not waiting.done()
        slots.discard()
        assert await waiting not in held


async def test_short_leases_share_what_takes_long_to_make():
    source = Source()

    async def make():
        await asyncio.sleep(0.3)
        return await source.make()

    async def close(_):
        pass

    async def case():
        number = await slots.take()
        await asyncio.sleep(0)
        slots.give_back(number)

    async with Slots(make, close=close, usable=lambda _: True, limit=100) as slots:
        await asyncio.gather(*(case() for _ in range(100)))
    assert len(source.alive) == 2


async def test_long_leases_get_each_their_own():
    source = Source()
    all_taken = asyncio.Event()

    async def case():
        number = await slots.take()
        if len(source.alive) == 20:
            all_taken.set()
        await all_taken.wait()
        slots.give_back(number)

    async with source.slots() as slots:
        await asyncio.wait_for(asyncio.gather(*(case() for _ in range(20))), 60)
    assert len(source.closed) == 20


async def test_many_that_are_held_hold_up_nobody():
    source = Source()
    async with source.slots() as slots:
        first = await slots.take()
        for _ in range(100):
            slots.give_back(first)
            first = await slots.take()
        held = [await asyncio.wait_for(slots.take(), 60) for _ in range(200)]
        assert len(set(held)) == 200


async def test_cancelled_waiter_gives_its_one_to_the_next():
    source = Source()
    async with source.slots(limit=1) as slots:
        held = await slots.take()
        cancelled, next_one = asyncio.ensure_future(slots.take()), asyncio.ensure_future(slots.take())
        await asyncio.sleep(0)
        slots.give_back(held)
        cancelled.cancel()
        assert await next_one == held
        slots.give_back(held)
        with pytest.raises(asyncio.CancelledError):
            await cancelled


async def test_exhausted_server_is_shared_by_all():
    source = Source(most=2)
    async with source.slots() as slots:

        async def case():
            number = await slots.take()
            await asyncio.sleep(0)
            slots.give_back(number)
            return number

        assert set(await asyncio.gather(*(case() for _ in range(20)))) <= {0, 1}


async def test_exhausted_from_the_start_fails_every_waiter_and_recovers():
    source = Source(most=0)
    async with source.slots() as slots:
        results = await asyncio.gather(*(slots.take() for _ in range(5)), return_exceptions=True)
        assert {str(result) for result in results if isinstance(result, IsolationError)} == {
            "no more numbers: ask for fewer"
        }
        assert len(results) == 5
        source.most = 1
        slots.give_back(await slots.take())


async def test_failing_maker_fails_one_waiter_at_a_time():
    errors = iter([OSError("refused"), None])

    async def make():
        error = next(errors)
        if error:
            raise error

        return 1

    async def close(_):
        pass

    async with Slots(make, close=close, usable=bool, limit=1) as slots:
        first, second = await asyncio.gather(slots.take(), slots.take(), return_exceptions=True)
        assert isinstance(first, OSError)
        assert second == 1
        slots.give_back(second)


async def test_makers_that_are_late_are_closed_too():
    source = Source()
    source.gate.clear()
    async with source.slots() as slots:
        waiting = asyncio.ensure_future(slots.take())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        source.gate.set()
    assert source.closed == [0]


async def test_who_comes_after_the_end_is_told():
    async with Source().slots() as slots:
        pass
    with pytest.raises(IsolationError, match="after its end"):
        await slots.take()


async def test_one_that_is_spared_is_told_when_it_is_closed():
    source = Source(most=2)
    async with source.slots() as slots:
        first, second = await slots.take(), await slots.take()
        closed = slots.spare()
        assert slots.spare() is None  # the last one is kept
        assert not closed.done()
        slots.give_back(first)
        await closed
        assert source.closed == [first]
        slots.give_back(second)
        assert await slots.take() == second
        slots.give_back(second)


@pytest.mark.parametrize("broken", [True, False])
async def test_one_that_is_owed_is_told_when_it_breaks_or_all_end(broken):
    source = Source(most=2)
    async with source.slots() as slots:
        first, second = await slots.take(), await slots.take()
        closed = slots.spare()
        if broken:
            slots.discard()
            await closed
    await closed
    assert {first, second} == source.alive


async def test_one_is_there_before_anybody_asks_if_it_can_be_had():
    source = Source(most=1)
    async with source.slots() as slots:
        await slots.prepare()
        await slots.prepare()
        assert source.alive == {0}
        assert await slots.take() == 0
        slots.give_back(0)
    empty = Source(most=0)
    async with empty.slots() as slots:
        await slots.prepare()
        with pytest.raises(IsolationError, match="no more numbers"):
            await slots.take()


async def in_stock(slots, count):
    slots.grow()
    while slots.size < count:  # noqa: ASYNC110  # nothing tells of it
        await asyncio.sleep(0)


async def test_who_takes_one_of_several_begins_before_another_is_made_in_its_stead():
    source = Source()
    async with source.slots(ahead=lambda: 2) as slots:
        await in_stock(slots, 2)
        source.gate.clear()
        await slots.take()
        made_at_once = slots.making
        while not slots.making:  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.001)
        source.gate.set()
    assert not made_at_once


@pytest.mark.parametrize("stock", [1, 2])
async def test_another_is_made_at_once_when_the_last_one_is_taken_or_one_is_discarded(stock):
    source = Source()
    async with source.slots(ahead=lambda: stock) as slots:
        await in_stock(slots, stock)
        source.gate.clear()
        await slots.take()
        if stock > 1:
            slots.discard()
        assert slots.making == 1
        source.gate.set()
