import asyncio

import pytest

pytestmark = pytest.mark.anyio


async def test_all_pass(subtests):
    for number in range(3):
        with subtests.test("case", number=number):
            await asyncio.sleep(0)


async def test_some_fail(subtests):
    for number in range(4):
        with subtests.test(number=number):
            await asyncio.sleep(0)
            assert number % 2 == 0


async def test_and_itself_fails(subtests):
    with subtests.test("one"):
        assert [1, 2] == [1, 3]
    raise LookupError


async def test_skips_within(subtests):
    with subtests.test("skipping"):
        pytest.skip("inside")
    with subtests.test("expected"):
        pytest.xfail("inside")


async def test_output(subtests):
    with subtests.test("loud"):
        print("from a subtest")
        assert not "loud"


@pytest.mark.parametrize("number", range(5))
async def test_beside_each_other(subtests, number):
    for step in range(5):
        with subtests.test(number=number, step=step):
            await asyncio.sleep(0.001 * (number + 1))
            assert step != number


@pytest.mark.xfail(reason="a subtest fails")
async def test_expected(subtests):
    with subtests.test():
        raise LookupError


def test_sync(subtests):
    with subtests.test("sync"):
        assert not "sync"


async def test_plain_failing():
    assert {"a": 1} == {"a": 2}
