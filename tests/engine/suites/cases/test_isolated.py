import asyncio
import unittest

import pytest
from trail import note


class WithHooks(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        self.order = ["setUp"]

    async def asyncSetUp(self):
        self.order.append("asyncSetUp")
        self.addAsyncCleanup(self.cleaned)
        self.entered = await self.enterAsyncContext(self.context())

    async def cleaned(self):
        note("cleaned", self.id())

    @staticmethod
    def context():
        from contextlib import asynccontextmanager

        @asynccontextmanager
        async def context():
            note("context-up")
            yield "value"
            note("context-down")

        return context()

    async def asyncTearDown(self):
        note("asyncTearDown", self.id())

    def tearDown(self):
        note("tearDown", self.id())

    async def test_order(self):
        assert self.order == ["setUp", "asyncSetUp"]
        assert self.entered == "value"
        await asyncio.sleep(0)

    def test_sync(self):
        assert self.order == ["setUp", "asyncSetUp"]

    async def test_fails(self):
        self.assertEqual({"a": 1}, {"a": 2})

    async def test_errs(self):
        raise LookupError("here")

    async def test_skips(self):
        self.skipTest("at run time")

    async def test_skips_by_pytest(self):
        pytest.skip("by pytest")

    @unittest.skip("by decorator")
    async def test_skipped(self):
        raise AssertionError

    @unittest.skipIf(True, "by condition")
    async def test_skipped_if(self):
        raise AssertionError

    @unittest.expectedFailure
    async def test_expected(self):
        self.fail()

    @unittest.expectedFailure
    async def test_unexpected(self):
        pass

    async def test_sub(self):
        for number in range(3):
            with self.subTest("sub", number=number):
                self.assertNotEqual(number, 1)

    async def test_cleanup_fails(self):
        self.addAsyncCleanup(self.raising)

    async def raising(self):
        raise LookupError("in clean-up")


@pytest.mark.usefixtures("for_class")
class WithFixtures(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def _inject(self, tmp_path, server):
        self.tmp = tmp_path
        self.server = server

    def test_given(self):
        assert self.given
        assert self.tmp.exists()
        assert self.server.startswith("server")

    @pytest.mark.skipif("True", reason="a string")
    def test_skip_by_mark(self):
        raise AssertionError

    @pytest.mark.xfail(reason="by mark")
    def test_xfail_by_mark(self):
        raise AssertionError

    def test_sub(self):
        with self.subTest(kind="fine"):
            pass
        with self.subTest(kind="wrong"):
            self.fail("on purpose")


class IsolatedWithFixture(unittest.IsolatedAsyncioTestCase):
    @pytest.fixture(autouse=True)
    def _inject(self, server):
        self.server = server

    async def test_server(self):
        assert self.server.startswith("server")


class SetUpClassFails(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        raise LookupError("in setUpClass")

    def test_never(self):
        pass


@unittest.skip("the whole class")
class Skipped(unittest.TestCase):
    def test_never(self):
        pass


class ModuleLevel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.addClassCleanup(note, "class-cleanup")

    def test_fine(self):
        self.addCleanup(note, "cleanup")


def setUpModule():
    note("setUpModule")


def tearDownModule():
    note("tearDownModule")
