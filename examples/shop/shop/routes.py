"""HTTP in, HTTP out: each endpoint reads its request, calls one use case and shows its result."""

from __future__ import annotations

from importlib.resources import files
from typing import Final, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shop import requests
from shop.composition import Shop
from shop.models import Order, Page, Product, User

__all__ = ["OPENAPI", "routes"]

OPENAPI: Final = files("shop").joinpath("openapi.json").read_text(encoding="utf-8")


def _shop(request: Request) -> Shop:
    return cast("Shop", request.app.state.shop)


def _id(request: Request, what: str) -> int:
    return requests.identifier(what, request.path_params["id"])


def _created(item: User | Product | Order, collection: str) -> JSONResponse:
    return JSONResponse(item.to_json(), status_code=201, headers={"location": f"/api/{collection}/{item.id}"})


def _shown(item: User | Product | Order) -> JSONResponse:
    return JSONResponse(item.to_json())


def _listed(page: Page[User] | Page[Product] | Page[Order]) -> JSONResponse:
    return JSONResponse({"items": [item.to_json() for item in page.items], "next": page.next})


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


async def place_order(request: Request) -> Response:
    order = requests.order_request(await requests.body(request))
    return _created(await _shop(request).orders.place(order), "orders")


async def get_order(request: Request) -> Response:
    return _shown(await _shop(request).orders.get(_id(request, "order")))


async def pay_order(request: Request) -> Response:
    return _shown(await _shop(request).orders.pay(_id(request, "order")))


async def cancel_order(request: Request) -> Response:
    return _shown(await _shop(request).orders.cancel(_id(request, "order")))


async def health(request: Request) -> Response:
    status = await _shop(request).health()
    return JSONResponse(status, status_code=200 if status["database"] == "up" else 503)


async def openapi(request: Request) -> Response:
    return Response(OPENAPI, media_type="application/json")


routes = [
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
    Route("/api/orders", place_order, methods=["POST"]),
    Route("/api/orders/{id}", get_order, methods=["GET"]),
    Route("/api/orders/{id}/payment", pay_order, methods=["POST"]),
    Route("/api/orders/{id}/cancellation", cancel_order, methods=["POST"]),
]
