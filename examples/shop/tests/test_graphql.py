"""The shop's GraphQL, through the fixture ``graphql``; a query that ``schema.graphql`` doesn't know is never sent."""

from __future__ import annotations

import re

import pytest
from asynctest_kit.graphql import test_schema_breaks_no_client

from shop.app import create_app

__all__ = ["test_schema_breaks_no_client"]

pytestmark = pytest.mark.anyio

PLACE_ORDER = """
    mutation($user: ID!, $product: ID!, $quantity: Int!) {
        placeOrder(userId: $user, lines: [{productId: $product, quantity: $quantity}]) { id status totalCents }
    }
"""


async def test_orders_of_a_user(graphql, make_user, place_order):
    user = await make_user(name="Grace")
    order = await place_order(user=user, quantity=2, name="Tea", price_cents=450)
    query = "query($id: ID!) { user(id: $id) { name orders { id lines { quantity product { name stock } } } } }"

    result = await graphql(query, id=user.id)

    lines = [{"quantity": 2, "product": {"name": "Tea", "stock": 8}}]
    result.expect({"user": {"name": "Grace", "orders": [{"id": str(order.id), "lines": lines}]}})


async def test_products_are_paged(graphql, make_product):
    first, second, _ = [await make_product() for _ in range(3)]

    result = await graphql("query($after: ID) { products(first: 1, after: $after) { sku } }", after=first.id)

    result.expect({"products": [{"sku": second.sku}]})


async def test_mutation_stores_the_order(graphql, pg, make_user, make_product):
    user, product = await make_user(), await make_product(price_cents=450, stock=10)

    result = await graphql(PLACE_ORDER, user=user.id, product=product.id, quantity=3)

    result.expect({"placeOrder": {"status": "PENDING", "totalCents": 1350}})
    assert await pg.fetchval("SELECT user_id FROM orders WHERE id = $1", int(result["placeOrder"]["id"])) == user.id
    assert await pg.fetchval("SELECT stock FROM products WHERE id = $1", product.id) == 7


async def test_mutation_that_fails_stores_nothing(graphql, pg, make_user, make_product):
    user, product = await make_user(), await make_product(stock=2)

    result = await graphql(PLACE_ORDER, user=user.id, product=product.id, quantity=3)

    result.expect_error("3 asked for, 2 in stock", path="placeOrder", code="insufficient_stock").expect(None)
    assert await pg.fetchval("SELECT count(*) FROM orders") == 0


@pytest.mark.parametrize("what", ["product", "order", "user"])
async def test_unknown_is_an_error(graphql, what):
    result = await graphql(f"{{ {what}(id: 9000000000) {{ id }} }}")

    result.expect_error(f"there is no {what} 9000000000", path=what, code="not_found")


async def test_subscription_follows_an_order(graphql, api, place_order):
    order = await place_order()
    changes = "subscription($id: ID!) { orderChanges(id: $id) { status } }"

    async with graphql.subscribe(changes, id=order.id) as events:
        (await anext(events)).expect({"orderChanges": {"status": "PENDING"}})
        (await api.post(f"/api/orders/{order.id}/payment")).expect(200)
        told = [event["orderChanges"]["status"] async for event in events]

    assert told == ["PAYING", "PAID"]


async def test_subscription_to_an_unknown_order(graphql):
    async with graphql.subscribe("subscription { orderChanges(id: 9000000000) { status } }") as events:
        (await anext(events)).expect_error("there is no order 9000000000", code="not_found")


class TestShopWithoutDatabase:
    @pytest.fixture
    def app(self, redis, payments_http):
        return create_app(pool=None, redis=redis, http=payments_http)

    async def test_what_went_wrong_is_not_told(self, graphql):
        result = await graphql("{ products { name } }")

        result.expect_error(re.compile(r"^Unexpected error\.$"), path="products")
