import asyncio
import unittest

import pytest
from trail import note


class Plain(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        note("setUpClass", cls.__name__)
        cls.ready = True

    @classmethod
    def tearDownClass(cls):
        note("tearDownClass", cls.__name__)

    def setUp(self):
        self.number = 1

    def test_passes(self):
        assert self.ready
        self.assertEqual(self.number, 1)

    def test_fails(self):
        self.assertEqual(self.number, 2)

    @unittest.skip("by unittest")
    def test_skipped(self):
        raise AssertionError

    @unittest.expectedFailure
    def test_expected(self):
        self.fail()

    @pytest.mark.usefixtures("sync_session")
    def test_with_fixture(self):
        pass


class Looped(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.loop = asyncio.get_running_loop()

    async def test_passes(self):
        assert asyncio.get_running_loop() is self.loop

    async def test_fails(self):
        self.assertEqual(1, 2)


def test_starts_a_loop():
    async def main():
        await asyncio.sleep(0)
        return 1

    assert asyncio.run(main()) == 1


def doubled(number):
    """Twice the number.

    >>> doubled(2)
    4
    >>> doubled(3)
    7
    """
    return number * 2


def halved(number):
    """
    >>> halved(2)
    1
    """
    return number // 2
