"""A real GraphQL app: strawberry over starlette, with subscriptions and uploads."""

from __future__ import annotations

from collections.abc import AsyncIterator

import strawberry
from graphql import GraphQLError
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute
from strawberry.asgi import GraphQL


@strawberry.type
class Book:
    id: int
    title: str
    secret: str | None = None


@strawberry.type
class Query:
    @strawberry.field
    def book(self, id: int) -> Book | None:  # noqa: A002
        if id < 0:
            raise GraphQLError("there is no such book", extensions={"code": "NOT_FOUND"})
        return Book(id=id, title=f"Book {id}")

    @strawberry.field
    def books(self, first: int = 2) -> list[Book]:
        return [Book(id=number, title=f"Book {number}") for number in range(first)]

    @strawberry.field
    def caller(self, info: strawberry.Info) -> str:
        return info.context["request"].headers.get("x-caller", "nobody")


@strawberry.type
class Mutation:
    @strawberry.mutation
    def rename(self, id: int, title: str) -> Book:  # noqa: A002
        return Book(id=id, title=title)


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number
        if to == 0:
            raise GraphQLError("nothing to count")


def library() -> Starlette:
    """The app."""
    schema = strawberry.Schema(Query, Mutation, Subscription)
    endpoint = GraphQL(schema)
    return Starlette(routes=[Route("/graphql", endpoint), WebSocketRoute("/graphql", endpoint)])
