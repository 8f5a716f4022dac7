"""HTTP in, HTTP out: each endpoint reads its request, calls one use case and shows its result."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from importlib.resources import files
from typing import Final, cast

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from shop import requests
from shop.carts import Carts
from shop.composition import Shop
from shop.errors import ShopError
from shop.models import Cart, Line, Order, Page, Product, User

__all__ = ["OPENAPI", "routes"]

OPENAPI: Final = files("shop").joinpath("openapi.json").read_text(encoding="utf-8")


CART: Final = "cart"

_TOKEN = re.compile(r"[0-9a-f]{32}")


class EventStream(StreamingResponse):
    """Server-sent events ``order``; the first has been waited for, so that its errors have a status of their own."""

    def __init__(self, first: Order, following: AsyncGenerator[Order, None]) -> None:
        self._following = following
        super().__init__(
            _events(first, following), media_type="text/event-stream", headers={"cache-control": "no-store"}
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._following):  # also when the client goes
            await super().__call__(scope, receive, send)


async def _events(first: Order, following: AsyncGenerator[Order, None]) -> AsyncGenerator[str, None]:
    yield _event(first)

    async for order in following:
        yield _event(order)


def _event(order: Order) -> str:
    return f"event: order\ndata: {json.dumps(order.to_json())}\n\n"


def _shop(connection: HTTPConnection) -> Shop:
    return cast("Shop", connection.app.state.shop)


def _id(request: Request, what: str) -> int:
    return requests.identifier(what, request.path_params["id"])


def _created(item: User | Product | Order, collection: str) -> JSONResponse:
    return JSONResponse(item.to_json(), status_code=201, headers={"location": f"/api/{collection}/{item.id}"})


def _shown(item: User | Product | Order) -> JSONResponse:
    return JSONResponse(item.to_json())


def _listed(page: Page[User] | Page[Product] | Page[Order]) -> JSONResponse:
    return JSONResponse({"items": [item.to_json() for item in page.items], "next": page.next})


def _cart(request: Request) -> str:
    """The token of the visitor's cart, a new one for a new visitor."""
    token = request.cookies.get(CART, "")
    return token if _TOKEN.fullmatch(token) else Carts.new_token()


def _cart_shown(cart: Cart, token: str) -> JSONResponse:
    response = JSONResponse(cart.to_json())
    response.set_cookie(CART, token, httponly=True, samesite="lax")
    return response


async def create_user(request: Request) -> Response:
    new = requests.new_user(await requests.body(request))
    return _created(await _shop(request).users.create(new), "users")


async def list_users(request: Request) -> Response:
    return _listed(await _shop(request).users.page(requests.page_request(request.query_params)))


async def get_user(request: Request) -> Response:
    return _shown(await _shop(request).users.get(_id(request, "user")))


async def update_user(request: Request) -> Response:
    changes = requests.user_changes(await requests.body(request))
    return _shown(await _shop(request).users.update(_id(request, "user"), changes))


async def delete_user(request: Request) -> Response:
    await _shop(request).users.delete(_id(request, "user"))
    return Response(status_code=204)


async def list_orders(request: Request) -> Response:
    page = requests.page_request(request.query_params)
    return _listed(await _shop(request).orders.page(_id(request, "user"), page))


async def create_product(request: Request) -> Response:
    new = requests.new_product(await requests.body(request))
    return _created(await _shop(request).products.create(new), "products")


async def list_products(request: Request) -> Response:
    return _listed(await _shop(request).products.page(requests.page_request(request.query_params)))


async def get_product(request: Request) -> Response:
    return _shown(await _shop(request).products.get(_id(request, "product")))


async def update_product(request: Request) -> Response:
    changes = requests.product_changes(await requests.body(request))
    return _shown(await _shop(request).products.update(_id(request, "product"), changes))


async def get_cart(request: Request) -> Response:
    token = _cart(request)
    return _cart_shown(await _shop(request).carts.get(token), token)


async def put_in_cart(request: Request) -> Response:
    quantity = requests.quantity(await requests.body(request))
    line, token = Line(product_id=_id(request, "product"), quantity=quantity), _cart(request)
    return _cart_shown(await _shop(request).carts.put(token, line), token)


async def order_cart(request: Request) -> Response:
    user_id = requests.buyer(await requests.body(request))
    return _created(await _shop(request).carts.order(_cart(request), user_id), "orders")


async def place_order(request: Request) -> Response:
    order = requests.order_request(await requests.body(request))
    return _created(await _shop(request).orders.place(order), "orders")


async def get_order(request: Request) -> Response:
    return _shown(await _shop(request).orders.get(_id(request, "order")))


async def pay_order(request: Request) -> Response:
    return _shown(await _shop(request).orders.pay(_id(request, "order")))


async def cancel_order(request: Request) -> Response:
    return _shown(await _shop(request).orders.cancel(_id(request, "order")))


async def order_events(request: Request) -> Response:
    changes = _shop(request).orders.changes(_id(request, "order"))
    return EventStream(await anext(changes), changes)


async def stock(websocket: WebSocket) -> None:
    """Tells the stock of each product that the client asks to watch: now, and whenever it changes."""
    await websocket.accept()

    async with asyncio.TaskGroup() as group:
        watching = [group.create_task(_tell_stock(websocket, text)) async for text in websocket.iter_text()]

        for task in watching:
            task.cancel()


async def _tell_stock(websocket: WebSocket, text: str) -> None:
    try:
        product_id = requests.watch(text)

        async with aclosing(_shop(websocket).products.stock(product_id)) as levels:
            async for level in levels:
                await websocket.send_json({"product_id": product_id, "stock": level})
    except ShopError as error:
        await websocket.send_json({"error": error.to_json()})


async def health(request: Request) -> Response:
    status = await _shop(request).health()
    return JSONResponse(status, status_code=200 if status["database"] == "up" else 503)


async def openapi(request: Request) -> Response:
    return Response(OPENAPI, media_type="application/json")


routes: list[BaseRoute] = [
    Route("/openapi.json", openapi, methods=["GET"]),
    Route("/healthz", health, methods=["GET"]),
    Route("/api/users", create_user, methods=["POST"]),
    Route("/api/users", list_users, methods=["GET"]),
    Route("/api/users/{id}", get_user, methods=["GET"]),
    Route("/api/users/{id}", update_user, methods=["PATCH"]),
    Route("/api/users/{id}", delete_user, methods=["DELETE"]),
    Route("/api/users/{id}/orders", list_orders, methods=["GET"]),
    Route("/api/products", create_product, methods=["POST"]),
    Route("/api/products", list_products, methods=["GET"]),
    Route("/api/products/{id}", get_product, methods=["GET"]),
    Route("/api/products/{id}", update_product, methods=["PATCH"]),
    Route("/api/cart", get_cart, methods=["GET"]),
    Route("/api/cart/order", order_cart, methods=["POST"]),
    Route("/api/cart/products/{id}", put_in_cart, methods=["PUT"]),
    Route("/api/orders", place_order, methods=["POST"]),
    Route("/api/orders/{id}", get_order, methods=["GET"]),
    Route("/api/orders/{id}/events", order_events, methods=["GET"]),
    Route("/api/orders/{id}/payment", pay_order, methods=["POST"]),
    Route("/api/orders/{id}/cancellation", cancel_order, methods=["POST"]),
    WebSocketRoute("/api/stock", stock),
]
