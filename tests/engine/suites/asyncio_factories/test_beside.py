import asyncio


async def test_beside():
    await asyncio.sleep(0)
