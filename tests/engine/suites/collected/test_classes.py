import unittest

import pytest

pytestmark = pytest.mark.anyio


def setup_module():
    pass


def setup_function():
    pass


class Shared:
    @pytest.fixture
    def place(self, place):
        return f"{place}/shared"

    async def test_inherited(self, place):
        pass

    async def test_inherited_too(self, place):
        pass

    async def test_overridden(self, number):
        pass


class TestFirst(Shared):
    def setup_method(self):
        pass

    @classmethod
    def setup_class(cls):
        pass

    async def test_overridden(self):
        pass

    async def test_own(self, place):
        pass

    @staticmethod
    async def test_static(place):
        pass

    @staticmethod
    async def test_static_too(place):
        pass

    @classmethod
    async def test_of_class(cls, place):
        pass

    @classmethod
    async def test_of_class_too(cls, place):
        pass

    class TestInner(Shared):
        @pytest.fixture(autouse=True)
        def around_inner(self, number):
            yield

        async def test_inner(self):
            pass

        async def test_inner_too(self):
            pass


@pytest.mark.usefixtures("number")
class TestSecondLate(Shared):
    pytestmark = pytest.mark.kind("class")

    async def test_own(self, place, request):
        pass

    async def test_own_too(self, place, request):
        pass


class TestGenerates:
    def pytest_generate_tests(self, metafunc):
        if "value" in metafunc.fixturenames:
            metafunc.parametrize("value", [1, 2])

    async def test_generated(self, value):
        pass

    async def test_generated_too(self, value):
        pass


class TestWithConstructor:
    def __init__(self):
        self.x = 1

    async def test_never(self):
        pass


class TestCase(unittest.IsolatedAsyncioTestCase):
    async def test_case(self):
        pass

    async def test_case_too(self):
        pass
