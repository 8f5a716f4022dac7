import asyncio


async def test_unmarked():
    await asyncio.sleep(0)


class TestUnmarked:
    async def test_method(self):
        await asyncio.sleep(0)
