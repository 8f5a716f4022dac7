import asyncio
import socket

import pytest
from conftest import REQUEST
from hypothesis import given, settings
from hypothesis import strategies as st
from trail import held, used


async def test_unmarked(row, sync_over):
    with used("unmarked", row, sync_over):
        await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_marked(table, server):
    with used("marked", table, server):
        await asyncio.sleep(0.01)


@pytest.mark.asyncio(loop_scope="session")
async def test_loop_of_the_session(server):
    assert asyncio.get_running_loop()


def test_sync(row, sync_over):
    with used("sync", row, sync_over):
        pass


async def test_loop_of_a_sync_fixture(sync_with_loop):
    assert sync_with_loop is asyncio.get_running_loop()


async def test_loop_of_a_sync_fixture_can_be_used(sync_with_loop):
    future = sync_with_loop.create_future()
    sync_with_loop.call_soon(future.set_result, 1)
    assert await future == 1


async def test_chosen(chosen):
    with used(f"chosen-{chosen}", chosen):
        pass


async def test_awaited(awaited):
    assert awaited == "awaited"


async def test_context(in_context):
    assert REQUEST.get() == "set"


async def test_ports(unused_tcp_port, unused_udp_port, unused_tcp_port_factory, unused_udp_port_factory):
    with socket.socket() as one:
        one.bind(("127.0.0.1", unused_tcp_port))
    assert len({unused_tcp_port, unused_tcp_port_factory(), unused_tcp_port_factory()}) == 3
    assert unused_udp_port_factory() > 0
    assert unused_udp_port > 0


async def test_policy(event_loop_policy):
    assert event_loop_policy is asyncio.get_event_loop_policy()


async def test_fails(awaited):
    raise LookupError


@pytest.mark.xfail(reason="expected")
async def test_expected_to_fail():
    raise LookupError


@pytest.mark.parametrize("number", [1, 2])
async def test_parametrized(number, row):
    assert number in {1, 2}


class TestMethods:
    @pytest.fixture
    async def mine(self, row):
        self.kept = row
        with held("mine", row) as value:
            yield value

    @pytest.fixture(autouse=True)
    async def set_up(self):
        self.ready = True

    async def test_method(self, mine):
        assert self.ready
        assert mine.startswith("mine")
        assert self.kept

    @staticmethod
    async def test_static(awaited):
        assert awaited

    def test_sync_method(self, mine):
        assert self.kept


@settings(derandomize=True)
@given(number=st.integers(1, 3))
async def test_hypothesis(number):
    await asyncio.sleep(0)
    assert number


@settings(derandomize=True)
@given(number=st.integers(1, 3))
async def test_hypothesis_fails(number):
    await asyncio.sleep(0)
    assert number > 3


async def test_asks(request):
    assert request.getfixturevalue("around") is None
    with pytest.raises(RuntimeError):
        request.getfixturevalue("awaited")


async def test_skips():
    pytest.skip("in the test")
