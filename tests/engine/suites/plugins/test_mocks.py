"""Tests that patch with pytest-mock's fixture, and that mock HTTP with respx's, beside tests that do neither."""

import asyncio
import sys

import httpx
import pytest

pytestmark = pytest.mark.anyio
here = sys.modules[__name__]


async def price():
    return 3


@pytest.mark.parametrize("number", range(3))
async def test_patched(mocker, number):
    patched = mocker.patch.object(here, "price", return_value=number)
    await asyncio.sleep(0.02)
    assert await here.price() == number
    patched.assert_awaited_once_with()


@pytest.mark.parametrize("number", range(3))
async def test_stubbed(mocker, number):
    stub = mocker.stub()
    await asyncio.sleep(0.02)
    stub(number)
    stub.assert_called_once_with(number)


@pytest.mark.parametrize("number", range(3))
async def test_not_patched(number):
    for _ in range(5):
        assert await here.price() == 3
        await asyncio.sleep(0.01)


@pytest.mark.respx(base_url="https://example.org")
@pytest.mark.parametrize("number", range(2))
async def test_answers(respx_mock, number):
    respx_mock.get("/").respond(200 + number)
    async with httpx.AsyncClient() as client:
        await asyncio.sleep(0.02)
        assert (await client.get("https://example.org/")).status_code == 200 + number


@pytest.mark.parametrize("number", range(2))
async def test_answers_by_itself(number):
    transport = httpx.MockTransport(lambda _: httpx.Response(418))
    async with httpx.AsyncClient(transport=transport) as client:
        for _ in range(3):
            assert (await client.get("https://example.org/")).status_code == 418
            await asyncio.sleep(0.01)
