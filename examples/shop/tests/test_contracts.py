"""Contracts: what the shop expects of the payment provider, and what the web front end expects of the shop.

The first half writes ``pacts/shop-payments.json``, which the payment provider's team verifies (``atk pact publish``
gives it to a broker). ``pacts/web-shop.json`` is what the front end's team wrote; the second half verifies the shop.
"""

from __future__ import annotations

import httpx
import pytest

from shop.errors import PaymentDeclined
from shop.payments import PaymentPolicy, Payments

match = pytest.importorskip("pact", reason="contracts need pact-python: pip install 'asynctest_kit[pact]'").match

pytestmark = pytest.mark.anyio


@pytest.fixture
def charge_expected(pact):
    """Says what a charge looks like, up to the provider's answer."""

    def expect(description, *, key):
        return (
            pact.upon_receiving(description)
            .with_request("POST", "/charges")
            .with_header("idempotency-key", key)
            .with_body({"amount_cents": match.int(900)}, "application/json")
        )

    return expect


async def charge(pact, *, key):
    """Calls what the pact's mock server plays."""
    async with pact.serve() as provider, httpx.AsyncClient(base_url=provider.url, verify=False) as http:
        return await Payments(http, PaymentPolicy(timeout=10.0)).charge(amount_cents=900, key=key)


async def test_charge(pact, charge_expected):
    expected = charge_expected("a charge", key="order-1-1")
    expected.will_respond_with(201).with_body({"id": match.str("payment-1")}, "application/json")

    assert await charge(pact, key="order-1-1") == "payment-1"


async def test_charge_that_is_declined(pact, charge_expected):
    expected = charge_expected("a charge that is declined", key="order-2-1")
    expected.given("the account is empty").will_respond_with(402)

    with pytest.raises(PaymentDeclined):
        await charge(pact, key="order-2-1")


async def test_shop_does_what_the_front_end_expects(pact_verifier, app, make_product, make_user):
    async def a_product(name, price_cents, stock):
        product = await make_product(name=name, price_cents=price_cents, stock=stock)
        return {"product_id": product.id}

    async def a_user():
        return {"user_id": (await make_user()).id}

    await pact_verifier(app, "pacts", states={"a product is in stock": a_product, "a user": a_user})
