"""The payment provider is MockServer: its expectations, and what it has received, are each test's own.

Where these tests may run is said as in ``test_payments_wiremock.py``.
"""

from __future__ import annotations

import httpx
import pytest
from stub_servers import is_named

if not is_named("MOCKSERVER"):
    pytest.skip("needs MockServer: set ATK_MOCKSERVER_JAR, or ATK_MOCKSERVER_IMAGE for Docker", allow_module_level=True)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def payments_http(mockserver, no_certificates):
    async with httpx.AsyncClient(base_url=mockserver.url, verify=no_certificates, trust_env=False) as client:
        yield client


async def test_paying_again_charges_once(api, mockserver, place_order):
    order = await place_order(quantity=2, price_cents=450)
    key = {"Idempotency-Key": f"order-{order.id}-1"}
    await mockserver.stub("POST", "/charges", request_headers=key, status=201, json={"id": "p-1"}, times=1)

    for _ in range(2):
        (await api.post(f"/api/orders/{order.id}/payment")).expect(200, json={"payment_id": "p-1"})

    await mockserver.verify("POST", "/charges", count=1, json={"amount_cents": 900})


async def test_declined_charge_gets_a_new_key(api, mockserver, place_order):
    order = await place_order()
    await mockserver.stub("POST", "/charges", status=201, json={"id": "p-2"})
    await mockserver.stub("POST", "/charges", status=402, times=1)  # the newest answers first

    (await api.post(f"/api/orders/{order.id}/payment")).expect(402)
    (await api.post(f"/api/orders/{order.id}/payment")).expect(200, json={"payment_id": "p-2"})

    charges = await mockserver.verify("POST", "/charges", count=2)
    assert [each.headers["Idempotency-Key"] for each in charges] == [f"order-{order.id}-1", f"order-{order.id}-2"]


async def test_cancelled_order_is_not_charged(api, mockserver, place_order):
    order = await place_order()
    (await api.post(f"/api/orders/{order.id}/cancellation")).expect(200)

    (await api.post(f"/api/orders/{order.id}/payment")).expect(409)

    await mockserver.verify(count=0)
