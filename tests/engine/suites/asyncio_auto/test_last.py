"""After the others: pytest-asyncio 0.26 finds no loop once a test has run its own."""

import asyncio


def test_sync_alone():
    assert asyncio.run(asyncio.sleep(0, 3)) == 3
