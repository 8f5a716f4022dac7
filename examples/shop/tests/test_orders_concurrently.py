"""Requests that race: real connections that commit, in a database of each test's own.

Inside one test's transaction there is no race to lose, so ``pg_pool`` is overridden with a real pool here, and with it
everything in conftest.py that is built on it.
"""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture
async def pg_pool(pg_database):
    async with asyncpg.create_pool(pg_database.url, min_size=1, max_size=4) as pool:
        yield pool


async def test_last_items_are_sold_once(api, pg_pool, make_user, make_product):
    user, last = await make_user(), await make_product(stock=3)
    order = {"user_id": user.id, "lines": [{"product_id": last.id, "quantity": 1}]}
    responses = await asyncio.gather(*(api.post("/api/orders", json=order) for _ in range(8)))

    assert sorted(response.status_code for response in responses) == [201] * 3 + [409] * 5
    assert await pg_pool.fetchval("SELECT stock FROM products WHERE id = $1", last.id) == 0


async def test_orders_of_the_same_products_do_not_deadlock(api, pg_pool, make_user, make_product):
    user = await make_user()
    products = [await make_product(stock=100) for _ in range(4)]
    lines = [{"product_id": product.id, "quantity": 1} for product in products]
    orders = [{"user_id": user.id, "lines": each} for each in (lines, lines[::-1])]
    responses = await asyncio.gather(*(api.post("/api/orders", json=order) for order in orders * 6))

    assert [response.status_code for response in responses] == [201] * 12
    stock = "SELECT array_agg(DISTINCT stock) FROM products WHERE id = ANY($1)"
    assert await pg_pool.fetchval(stock, [product.id for product in products]) == [88]


async def test_cart_is_ordered_once(api, pg_pool, make_user, make_product):
    user, tea, ann = await make_user(), await make_product(stock=10), api.as_("ann")
    await ann.put(f"/api/cart/products/{tea.id}", json={"quantity": 2})
    responses = await asyncio.gather(*(ann.post("/api/cart/order", json={"user_id": user.id}) for _ in range(4)))

    assert sorted(response.status_code for response in responses) == [201, 409, 409, 409]
    assert await pg_pool.fetchval("SELECT count(*) FROM orders") == 1


async def test_paying_at_once_charges_once(api, payments, place_order):
    order = await place_order(quantity=2, price_cents=450)
    responses = await asyncio.gather(*(api.post(f"/api/orders/{order.id}/payment") for _ in range(3)))

    assert [response.json()["status"] for response in responses] == ["paid"] * 3
    assert payments.charges == {f"order-{order.id}-1": 900}


async def test_order_is_paid_or_cancelled_not_both(api, pg_pool, payments, place_order):
    order = await place_order()
    paid, cancelled = await asyncio.gather(
        api.post(f"/api/orders/{order.id}/payment"), api.post(f"/api/orders/{order.id}/cancellation")
    )

    assert sorted([paid.status_code, cancelled.status_code]) == [200, 409]
    status = await pg_pool.fetchval("SELECT status FROM orders WHERE id = $1", order.id)
    assert (status, len(payments.charges)) in [("paid", 1), ("cancelled", 0)]


async def test_email_is_given_once(api, pg_pool, unique_email):
    email = unique_email()
    user = {"email": email, "name": "Ada"}
    responses = await asyncio.gather(*(api.post("/api/users", json=user) for _ in range(4)))

    assert sorted(response.status_code for response in responses) == [201, 409, 409, 409]
    assert await pg_pool.fetchval("SELECT count(*) FROM users WHERE email = $1", email) == 1
