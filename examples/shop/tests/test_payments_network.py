"""Payments by URL, as in production: mocked answers (``mock_http``), and connections that break (``faults``)."""

from __future__ import annotations

import httpx
import pytest
from asynctest_kit.http.apps import opened_app, serve

from shop.errors import PaymentDeclined, PaymentFailed, PaymentUnavailable
from shop.payments import PaymentPolicy, Payments

pytestmark = pytest.mark.anyio

URL = "https://payments.example.com"
CHARGES = f"{URL}/charges"
QUICK = PaymentPolicy(timeout=10.0, attempts=3, backoff=0.005)


@pytest.fixture
async def client(no_certificates, mock_http):
    async with httpx.AsyncClient(base_url=URL, verify=no_certificates) as http:
        yield Payments(http, QUICK)


@pytest.fixture
async def charging_over(payments, no_certificates, faults):
    """The provider on a real socket, with a proxy before it; gives the proxy, and a client with a policy."""
    async with opened_app(serve(payments.app)) as provider:
        proxy = await faults(provider.base_url)
        async with httpx.AsyncClient(base_url=proxy.url, verify=no_certificates) as http:
            yield proxy, lambda policy: Payments(http, policy)


async def test_declined(client, mock_http):
    route = mock_http.post(CHARGES).respond(402)

    with pytest.raises(PaymentDeclined):
        await client.charge(amount_cents=900, key="a")

    assert route.calls.last.request.headers["idempotency-key"] == "a"


async def test_unreachable_twice(client, mock_http):
    answers = [httpx.ConnectError("refused"), httpx.ConnectTimeout("late"), httpx.Response(201, json={"id": "p-1"})]
    mock_http.post(CHARGES).mock(side_effect=answers)

    assert await client.charge(amount_cents=900, key="a") == "p-1"


async def test_slow_network(charging_over, payments):
    proxy, charging = charging_over

    async with proxy.latency(0.02, jitter=0.01):
        assert await charging(QUICK).charge(amount_cents=900, key="a") == "payment-for-a"

    assert payments.charges == {"a": 900}


async def test_answer_that_never_comes_is_in_doubt_and_may_be_repeated(charging_over, payments):
    proxy, charging = charging_over

    async with proxy.half_open(connections=1):
        with pytest.raises(PaymentUnavailable, match="in time"):
            await charging(PaymentPolicy(timeout=0.3)).charge(amount_cents=900, key="a")

    assert await charging(QUICK).charge(amount_cents=900, key="a") == "payment-for-a"
    assert payments.charges == {"a": 900}


async def test_reset_is_in_doubt_and_may_be_repeated(charging_over, payments):
    proxy, charging = charging_over

    async with proxy.reset(connections=1) as fault:
        with pytest.raises(PaymentFailed, match="broke off"):
            await charging(QUICK).charge(amount_cents=900, key="a")

    assert fault.connections == 1
    assert await charging(QUICK).charge(amount_cents=900, key="a") == "payment-for-a"
