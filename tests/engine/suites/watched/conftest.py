import asyncio

import pytest


class Pool:
    """Starts its reader when it is first used; who asks is answered by it."""

    def __init__(self):
        self.reader = None
        self.questions = asyncio.Queue()

    async def ask(self):
        if self.reader is None:
            self.reader = asyncio.create_task(self.read(), name="reader")
        answer = asyncio.get_running_loop().create_future()
        self.questions.put_nowait(answer)
        return await answer

    async def read(self):
        while True:
            (await self.questions.get()).set_result("answer")


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
async def pool(anyio_backend):
    pool = Pool()
    yield pool
    if pool.reader is not None:
        pool.reader.cancel()
