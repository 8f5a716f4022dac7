"""GraphQL: the same use cases as under ``/api``, for clients that say which fields they want.

``schema.graphql`` is a snapshot of what this makes; clients rely on it, and ``atk graphql check`` compares the two.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import NewType, TypeAlias

import strawberry
from graphql import GraphQLError
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.extensions import MaskErrors
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext

from shop import models, requests
from shop.composition import Shop
from shop.errors import ShopError

__all__ = ["routes", "schema"]

Cents = NewType("Cents", int)
Context: TypeAlias = Shop
Info: TypeAlias = strawberry.Info[Context, None]

strawberry.enum(models.OrderStatus)


@strawberry.type
class Product:
    id: strawberry.ID
    sku: str
    name: str
    price_cents: Cents
    stock: int

    @classmethod
    def of(cls, product: models.Product) -> Product:
        return cls(
            id=strawberry.ID(str(product.id)),
            sku=product.sku,
            name=product.name,
            price_cents=Cents(product.price_cents),
            stock=product.stock,
        )


@strawberry.type
class OrderLine:
    quantity: int
    unit_price_cents: Cents
    product_id: strawberry.Private[int]

    @strawberry.field
    async def product(self, info: Info) -> Product:
        """As it is now; the line has the price of the moment of ordering."""
        return Product.of(await info.context.products.get(self.product_id))

    @classmethod
    def of(cls, line: models.OrderLine) -> OrderLine:
        return cls(quantity=line.quantity, unit_price_cents=Cents(line.unit_price_cents), product_id=line.product_id)


@strawberry.type
class Order:
    id: strawberry.ID
    status: models.OrderStatus
    total_cents: Cents
    lines: list[OrderLine]

    @classmethod
    def of(cls, order: models.Order) -> Order:
        return cls(
            id=strawberry.ID(str(order.id)),
            status=order.status,
            total_cents=Cents(order.total_cents),
            lines=[OrderLine.of(line) for line in order.lines],
        )


@strawberry.type
class User:
    id: strawberry.ID
    email: str
    name: str

    @strawberry.field
    async def orders(self, info: Info, first: int = 20, after: strawberry.ID | None = None) -> list[Order]:
        page = await info.context.orders.page(int(self.id), _page(first, after))
        return [Order.of(order) for order in page.items]

    @classmethod
    def of(cls, user: models.User) -> User:
        return cls(id=strawberry.ID(str(user.id)), email=user.email, name=user.name)


@strawberry.input
class OrderLineInput:
    product_id: strawberry.ID
    quantity: int


@strawberry.type
class Query:
    @strawberry.field
    async def product(self, info: Info, id: strawberry.ID) -> Product:
        return Product.of(await info.context.products.get(requests.identifier("product", id)))

    @strawberry.field
    async def products(self, info: Info, first: int = 20, after: strawberry.ID | None = None) -> list[Product]:
        page = await info.context.products.page(_page(first, after))
        return [Product.of(product) for product in page.items]

    @strawberry.field
    async def user(self, info: Info, id: strawberry.ID) -> User:
        return User.of(await info.context.users.get(requests.identifier("user", id)))

    @strawberry.field
    async def order(self, info: Info, id: strawberry.ID) -> Order:
        return Order.of(await info.context.orders.get(requests.identifier("order", id)))


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def place_order(self, info: Info, user_id: strawberry.ID, lines: list[OrderLineInput]) -> Order:
        """Take the goods from stock, or change nothing at all."""
        asked = [
            {"product_id": requests.identifier("product", line.product_id), "quantity": line.quantity} for line in lines
        ]
        request = requests.order_request({"user_id": requests.identifier("user", user_id), "lines": asked})
        return Order.of(await info.context.orders.place(request))


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def order_changes(self, info: Info, id: strawberry.ID) -> AsyncIterator[Order]:
        """The order as it is, and then whenever its status changes, until it is paid or cancelled."""
        async with aclosing(info.context.orders.changes(requests.identifier("order", id))) as changes:
            async for order in changes:
                yield Order.of(order)


class _Schema(strawberry.Schema):
    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Log what is nobody's mistake but the shop's."""
        super().process_errors([error for error in errors if _is_unexpected(error)], execution_context)


class _GraphQL(GraphQL[Context, None]):
    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Context:
        connection: HTTPConnection = request
        return connection.app.state.shop  # type: ignore[no-any-return]


def _page(first: int, after: str | None) -> models.PageRequest:
    return requests.page_request({"limit": str(first), "after": after or "0"})


def _is_unexpected(error: GraphQLError) -> bool:
    """The query's own errors have no original; the shop's tell what is wrong by themselves."""
    return not isinstance(error.original_error, ShopError | GraphQLError | None)


schema = _Schema(
    Query,
    Mutation,
    Subscription,
    config=StrawberryConfig(
        scalar_map={Cents: strawberry.scalar(name="Cents", description="Money, in whole cents.", serialize=int)}
    ),
    extensions=[lambda: MaskErrors(_is_unexpected)],
)

_endpoint = _GraphQL(schema, graphql_ide=None, allow_queries_via_get=False)

routes = [Route("/graphql", _endpoint, methods=["POST"]), WebSocketRoute("/graphql", _endpoint)]
