import pytest
from trail import note

pytestmark = pytest.mark.anyio

state = []


def setup_module(module):
    note("setup_module", module.__name__)
    state.append("module")


def teardown_module():
    note("teardown_module")


def setup_function(function):
    note("setup_function", function.__name__)


def teardown_function(function):
    note("teardown_function", function.__name__)


async def test_module_is_up():
    assert state == ["module"]


def test_module_is_up_sync():
    assert state == ["module"]


class TestMethods:
    @classmethod
    def setup_class(cls):
        note("setup_class", cls.__name__)
        cls.ready = True

    @classmethod
    def teardown_class(cls):
        note("teardown_class", cls.__name__)

    def setup_method(self, method):
        note("setup_method", method.__name__)
        self.name = method.__name__

    def teardown_method(self, method):
        note("teardown_method", method.__name__)
        assert self.name == method.__name__

    async def test_first(self):
        assert self.ready
        assert self.name == "test_first"

    async def test_second(self):
        assert self.name == "test_second"

    def test_third(self):
        assert self.ready
