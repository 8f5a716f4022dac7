"""The payment provider is WireMock, of which each test has stubs of its own: also for a shop in another process.

WireMock starts when a test asks for it. Not everybody who tries this example has it, so it has to be said where its jar
or image is (``stub_servers.py``).
"""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from stub_servers import is_named

from shop.payments import PaymentPolicy

if not is_named("WIREMOCK"):
    pytest.skip("needs WireMock: set ATK_WIREMOCK_JAR, or ATK_WIREMOCK_IMAGE for Docker", allow_module_level=True)

pytestmark = pytest.mark.anyio

CHARGE = Path(__file__).parent / "wiremock" / "charge.json"


@pytest.fixture
async def payments_http(wiremock, no_certificates):
    """The shop's client of the provider, as in production: over a real connection."""
    async with httpx.AsyncClient(base_url=wiremock.url, verify=no_certificates, trust_env=False) as client:
        yield client


@pytest.fixture
async def order(place_order):
    return await place_order(quantity=2, price_cents=450)


async def test_charge(api, wiremock, order):
    await wiremock.load(CHARGE)

    (await api.post(f"/api/orders/{order.id}/payment")).expect(
        200, json={"payment_id": f"payment-for-order-{order.id}-1"}
    )

    (charge,) = await wiremock.verify("POST", "/charges", count=1, json={"amount_cents": 900})
    assert charge.headers["Idempotency-Key"] == f"order-{order.id}-1"


async def test_declined(api, wiremock, order):
    await wiremock.stub("POST", "/charges", status=402)

    (await api.post(f"/api/orders/{order.id}/payment")).expect(402, json={"error": {"code": "payment_declined"}})


async def test_outage_that_ends_is_no_failure(api, wiremock, order):
    await wiremock.stub("POST", "/charges", status=503, scenario="outage", next_state="over")
    await wiremock.stub("POST", "/charges", status=201, json={"id": "p-1"}, scenario="outage", state="over")

    (await api.post(f"/api/orders/{order.id}/payment")).expect(200, json={"payment_id": "p-1"})

    await wiremock.verify("POST", "/charges", count=2, headers={"Idempotency-Key": f"order-{order.id}-1"})


@pytest.mark.parametrize("fault", ["EMPTY_RESPONSE", "CONNECTION_RESET_BY_PEER", "MALFORMED_RESPONSE_CHUNK"])
async def test_answer_that_breaks_off_is_in_doubt_and_may_be_repeated(api, wiremock, order, fault):
    await wiremock.stub("POST", "/charges", fault=fault)
    (await api.post(f"/api/orders/{order.id}/payment")).expect(502)
    (await api.get(f"/api/orders/{order.id}")).expect(200, json={"status": "paying"})

    await wiremock.load(CHARGE)  # the newest answers
    (await api.post(f"/api/orders/{order.id}/payment")).expect(200, json={"status": "paid"})

    await wiremock.verify("POST", "/charges", count=2, headers={"Idempotency-Key": f"order-{order.id}-1"})


class TestImpatient:
    @pytest.fixture
    def payment_policy(self):
        return PaymentPolicy(timeout=0.3)

    async def test_late_answer_is_in_doubt(self, api, wiremock, order):
        await wiremock.stub("POST", "/charges", delay=20.0)

        (await api.post(f"/api/orders/{order.id}/payment")).expect(503, json={"error": {"code": "payment_unavailable"}})
        (await api.get(f"/api/orders/{order.id}")).expect(200, json={"status": "paying"})


class TestInAProcessOfItsOwn:
    """Where ``mock_http`` doesn't reach."""

    @pytest.fixture
    def app(self, served_shop, wiremock):
        return served_shop(PAYMENTS_URL=wiremock.url)

    async def test_charge(self, api, wiremock):
        await wiremock.load(CHARGE)
        user = (await api.post("/api/users", json={"email": "ada@example.com", "name": "Ada"})).expect(201).json()
        tea = {"sku": "TEA-100", "name": "Tea", "price_cents": 450, "stock": 10}
        product = (await api.post("/api/products", json=tea)).expect(201).json()
        lines = [{"product_id": product["id"], "quantity": 2}]
        order = await api.post("/api/orders", json={"user_id": user["id"], "lines": lines})

        (await api.post(f"{order.headers['location']}/payment")).expect(200, json={"status": "paid"})

        await wiremock.verify("POST", "/charges", count=1, json={"amount_cents": 900})
