import asyncio

from trail import used


async def test_runs_on_it(event_loop, server):
    assert asyncio.get_running_loop() is event_loop
    assert server[1] is event_loop


async def test_row(row):
    with used("row-test", row):
        await asyncio.sleep(0)


def test_sync_uses_it(event_loop, row):
    assert event_loop.run_until_complete(asyncio.sleep(0, 5)) == 5


class TestMethods:
    async def test_method(self, row, event_loop):
        future = event_loop.create_future()
        event_loop.call_soon(future.set_result, 1)
        assert await future == 1


async def test_executor(event_loop):
    assert await event_loop.run_in_executor(None, lambda: 3) == 3
