"""What the shop tells by itself: server-sent events of an order, and stock over a WebSocket.

Nothing is waited for by the clock: ``expect`` waits for the next message, and the first tells that the shop listens.
"""

from __future__ import annotations

import asyncio

import pytest
from asynctest_kit.http.apps import serve
from starlette.responses import Response

pytestmark = pytest.mark.anyio


async def test_payment_is_told_to_its_end(api, place_order):
    order = await place_order()

    async with api.events(f"/api/orders/{order.id}/events") as events:
        await events.expect({"id": order.id, "status": "pending"}, event="order")
        (await api.post(f"/api/orders/{order.id}/payment")).expect(200)
        following = [event.json() async for event in events]

    assert [each["status"] for each in following] == ["paying", "paid"]
    assert following[-1]["payment_id"] == f"payment-for-order-{order.id}-1"


async def test_declined_payment_is_pending_again(api, payments, place_order):
    order = await place_order()
    payments.answer_next(Response(status_code=402))

    async with api.events(f"/api/orders/{order.id}/events") as events:
        await events.expect({"status": "pending"})
        (await api.post(f"/api/orders/{order.id}/payment")).expect(402)
        await events.expect({"status": "paying"})
        await events.expect({"status": "pending"})


async def test_cancelled_order_has_one_event(api, place_order):
    order = await place_order()
    (await api.post(f"/api/orders/{order.id}/cancellation")).expect(200)

    async with api.events(f"/api/orders/{order.id}/events") as events:
        assert [event.json()["status"] async for event in events] == ["cancelled"]


async def test_events_of_an_unknown_order(api):
    (await api.get("/api/orders/9000000000/events")).expect(404, json={"error": {"code": "not_found"}})


class TestWithoutRedis:
    @pytest.fixture
    def redis(self, dead_redis):
        return dead_redis

    async def test_there_are_no_events(self, api, place_order):
        order = await place_order()

        (await api.get(f"/api/orders/{order.id}/events")).expect(503, json={"error": {"code": "unavailable"}})

    async def test_orders_are_paid_all_the_same(self, api, place_order):
        order = await place_order()

        (await api.post(f"/api/orders/{order.id}/payment")).expect(200, json={"status": "paid"})


async def test_stock_is_told_while_orders_come_and_go(api, make_product, place_order):
    tea, cup = await make_product(stock=10), await make_product(stock=3)

    async with api.websocket("/api/stock") as stock:
        for product, level in ((tea, 10), (cup, 3)):
            await stock.send_json({"watch": product.id})
            await stock.expect({"product_id": product.id, "stock": level})

        order = await place_order(product=tea, quantity=4)
        await stock.expect({"product_id": tea.id, "stock": 6})
        (await api.post(f"/api/orders/{order.id}/cancellation")).expect(200)
        await stock.expect({"product_id": tea.id, "stock": 10})
        (await api.patch(f"/api/products/{cup.id}", json={"stock": 0})).expect(200)
        await stock.expect({"product_id": cup.id, "stock": 0})


@pytest.mark.parametrize(
    ("message", "code"),
    [("tea", "malformed"), ('{"watch": "tea"}', "invalid"), ('{"watch": 9000000000}', "not_found")],
)
async def test_what_can_not_be_watched(api, make_product, message, code):
    product = await make_product(stock=3)

    async with api.websocket("/api/stock") as stock:
        await stock.send(message)
        await stock.expect({"error": {"code": code, "message": str}})
        await stock.send_json({"watch": product.id})
        await stock.expect({"product_id": product.id, "stock": 3})


class TestServed:
    """Over a real socket, as browsers come: the same application, with a server before it."""

    @pytest.fixture
    def app(self, app):
        return serve(app)

    async def test_client_that_goes_is_forgotten(self, api, redis, make_product, place_order):
        product, order = await make_product(stock=3), await place_order()

        async with api.websocket("/api/stock") as stock, api.events(f"/api/orders/{order.id}/events") as events:
            await stock.send_json({"watch": product.id})
            await stock.expect({"stock": 3})
            await events.expect({"status": "pending"})
            assert await listeners(redis, product, order) == 2

        while await listeners(redis, product, order):  # noqa: ASYNC110 - Redis tells nobody who has left
            await asyncio.sleep(0.01)


async def listeners(redis, product, order):
    return sum(dict(await redis.pubsub_numsub(f"product:{product.id}", f"order:{order.id}")).values())
