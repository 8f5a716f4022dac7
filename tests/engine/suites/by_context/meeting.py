"""Where tests meet in the middle of what they do, when they run beside each other."""

import asyncio
import os


class Meeting:
    """All of ``count`` are here before anybody goes on, twice; who comes again is alone, as all are under pytest."""

    def __init__(self, count):
        self._barrier = asyncio.Barrier(count)
        self._to_come = 0 if "SUITE_PLAIN" in os.environ else 2 * count

    async def all(self):
        await asyncio.sleep(0)
        if self._to_come:
            self._to_come -= 1
            await self._barrier.wait()
