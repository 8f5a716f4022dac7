"""Visitors' sessions: each has a cart by a cookie, which ``api.as_(name)`` keeps and gives back."""

from __future__ import annotations

import pytest
from asynctest_kit.http.matching import exactly

pytestmark = pytest.mark.anyio


@pytest.fixture
async def tea(make_product):
    return await make_product(price_cents=450, stock=10)


async def test_visitors_have_carts_of_their_own(api, tea):
    ann, bob = api.as_("ann"), api.as_("bob")
    (await ann.put(f"/api/cart/products/{tea.id}", json={"quantity": 2})).expect(200)

    (await ann.get("/api/cart")).expect(200, json=exactly({"lines": [{"product_id": tea.id, "quantity": 2}]}))
    (await bob.get("/api/cart")).expect(200, json=exactly({"lines": []}))


async def test_cookie_is_for_the_server_alone(api):
    response = await api.get("/api/cart")

    response.expect(200, cookies={"cart": str}, headers={"set-cookie": lambda cookie: "HttpOnly" in cookie})


async def test_cookie_that_is_none_of_ours_is_replaced(api):
    session = api.session(cookies={"cart": "mine"})

    assert (await session.get("/api/cart")).cookies["cart"] != "mine"


async def test_quantity_is_changed_and_taken_out(api, tea, make_product):
    ann, cup = api.as_("ann"), await make_product(name="Cup")
    for product, quantity in ((cup, 1), (tea, 2), (tea, 3)):
        cart = await ann.put(f"/api/cart/products/{product.id}", json={"quantity": quantity})
    cart.expect(200, jsonpath={"$.lines[*].quantity": [3, 1]})

    cart = await ann.put(f"/api/cart/products/{tea.id}", json={"quantity": 0})

    cart.expect(200, json=exactly({"lines": [{"product_id": cup.id, "quantity": 1}]}))


async def test_ordered_cart_is_empty(api, pg, tea, make_user):
    user, ann = await make_user(), api.as_("ann")
    await ann.put(f"/api/cart/products/{tea.id}", json={"quantity": 2})

    order = (await ann.post("/api/cart/order", json={"user_id": user.id})).expect(201, json={"total_cents": 900})

    assert await pg.fetchval("SELECT user_id FROM orders WHERE id = $1", order.json()["id"]) == user.id
    (await ann.post("/api/cart/order", json={"user_id": user.id})).expect(409)


async def test_cart_is_kept_if_it_can_not_be_ordered(api, tea, make_user):
    user, ann = await make_user(), api.as_("ann")
    await ann.put(f"/api/cart/products/{tea.id}", json={"quantity": 11})

    (await ann.post("/api/cart/order", json={"user_id": user.id})).expect(409)

    (await ann.get("/api/cart")).expect(200, jsonpath={"$.lines[*].quantity": [11]})


async def test_cart_is_forgotten_in_the_end(api, redis, tea):
    response = await api.put(f"/api/cart/products/{tea.id}", json={"quantity": 2})

    assert 0 < await redis.ttl(f"cart:{response.cookies['cart']}") <= 7 * 24 * 3600


@pytest.mark.parametrize(("quantity", "status"), [(-1, 422), (1001, 422), ("two", 422), (None, 422), (2, 404)])
async def test_what_can_not_be_put_into_it(api, quantity, status):
    (await api.put("/api/cart/products/9000000000", json={"quantity": quantity})).expect(status)


class TestWithoutRedis:
    @pytest.fixture
    def redis(self, dead_redis):
        return dead_redis

    async def test_there_are_no_carts(self, api):
        (await api.get("/api/cart")).expect(503, json={"error": {"code": "unavailable"}})
