"""Requests' bodies and query strings, checked: every problem is told at once, each beside its field."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from starlette.requests import Request

from shop.errors import Invalid, Malformed, NotFound
from shop.models import Line, NewProduct, NewUser, OrderRequest, PageRequest, ProductChanges, UserChanges

__all__ = [
    "MAX_ID",
    "body",
    "buyer",
    "identifier",
    "new_product",
    "new_user",
    "order_request",
    "page_request",
    "product_changes",
    "quantity",
    "user_changes",
    "watch",
]

T = TypeVar("T")

MAX_ID = 2**63 - 1
MAX_PRICE_CENTS = 100_000_00
MAX_QUANTITY = 1_000
MAX_STOCK = 1_000_000
MAX_LINES = 50

_EMAIL = re.compile(r"[a-z0-9.!#$%&'*+/=?^_`{|}~-]+@([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}")
_SKU = re.compile(r"[A-Z0-9][A-Z0-9-]*")


class Fields:
    """Takes values out of an object and collects what is wrong with them; :meth:`check` raises it all.

    A bad value reads as a harmless stand-in, so that reading goes on to the next problem.
    """

    def __init__(self, values: Mapping[str, Any], *, prefix: str = "", problems: dict[str, str] | None = None) -> None:
        self._values = dict(values)
        self._prefix = prefix
        self._problems = {} if problems is None else problems

    def has(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str, *, longest: int, pattern: re.Pattern[str] | None = None, example: str = "") -> str:
        value = self._take(name)

        if not isinstance(value, str) or not value.strip() or len(value) > longest or not value.isprintable():
            return self._bad(name, f"must be printable text of 1 to {longest} characters", "")

        if pattern and not pattern.fullmatch(value):
            return self._bad(name, f"must look like {example}", "")

        return value.strip()

    def email(self, name: str) -> str:
        value = self._values.get(name)

        if isinstance(value, str):
            self._values[name] = value.strip().lower()

        return self.text(name, longest=254, pattern=_EMAIL, example="name@example.com")

    def integer(self, name: str, least: int, greatest: int) -> int:
        value = self._take(name)

        if type(value) is not int or not least <= value <= greatest:  # a bool is an int, but no number
            return self._bad(name, f"must be an integer from {least} to {greatest}", least)

        return value

    def objects(self, name: str, most: int) -> list[Fields]:
        value = self._take(name)

        if not isinstance(value, list) or not 1 <= len(value) <= most:
            return self._bad(name, f"must be a list of 1 to {most} objects", [])

        readers = []

        for index, item in enumerate(value):
            prefix = f"{self._prefix}{name}[{index}]"

            if isinstance(item, dict):
                readers.append(Fields(item, prefix=f"{prefix}.", problems=self._problems))
            else:
                self._problems[prefix] = "must be an object"

        return readers

    def problem(self, name: str, problem: str) -> None:
        self._problems.setdefault(self._prefix + name, problem)

    def end(self) -> None:
        """What nobody took is unknown."""
        for name in self._values:
            self.problem(name, "is not known here")

    def check(self) -> None:
        """Raise :class:`Invalid` if there was any problem."""
        self.end()

        if self._problems:
            raise Invalid("some values are not acceptable", fields=self._problems)

    def _take(self, name: str) -> Any:
        return self._values.pop(name, None)

    def _bad(self, name: str, problem: str, stand_in: T) -> T:
        self.problem(name, problem)
        return stand_in


async def body(request: Request) -> Mapping[str, Any]:
    """The request's JSON object.

    Raises:
        Malformed: It is something else.
    """
    return _object("the body", await request.body())


def identifier(what: str, text: str) -> int:
    """An id out of a path.

    Raises:
        NotFound: No row can have it.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_ID)) and int(text) <= MAX_ID):
        raise NotFound(what, text)

    return int(text)


def page_request(query: Mapping[str, str]) -> PageRequest:
    default = PageRequest()
    fields = Fields({name: _number(query[name]) for name in ("limit", "after") if name in query})
    page = PageRequest(
        limit=fields.integer("limit", 1, 100) if fields.has("limit") else default.limit,
        after=fields.integer("after", 0, MAX_ID) if fields.has("after") else default.after,
    )
    fields.check()
    return page


def new_user(values: Mapping[str, Any]) -> NewUser:
    fields = Fields(values)
    new = NewUser(email=fields.email("email"), name=fields.text("name", longest=100))
    fields.check()
    return new


def user_changes(values: Mapping[str, Any]) -> UserChanges:
    fields = Fields(values)
    changes = UserChanges(
        email=fields.email("email") if fields.has("email") else None,
        name=fields.text("name", longest=100) if fields.has("name") else None,
    )
    fields.check()
    return changes


def new_product(values: Mapping[str, Any]) -> NewProduct:
    fields = Fields(values)
    new = NewProduct(
        sku=fields.text("sku", longest=40, pattern=_SKU, example="TEA-100"),
        name=fields.text("name", longest=100),
        price_cents=fields.integer("price_cents", 1, MAX_PRICE_CENTS),
        stock=fields.integer("stock", 0, MAX_STOCK),
    )
    fields.check()
    return new


def product_changes(values: Mapping[str, Any]) -> ProductChanges:
    fields = Fields(values)
    changes = ProductChanges(
        price_cents=fields.integer("price_cents", 1, MAX_PRICE_CENTS) if fields.has("price_cents") else None,
        stock=fields.integer("stock", 0, MAX_STOCK) if fields.has("stock") else None,
    )
    fields.check()
    return changes


def order_request(values: Mapping[str, Any]) -> OrderRequest:
    fields = Fields(values)
    user_id = fields.integer("user_id", 1, MAX_ID)
    lines: dict[int, Line] = {}

    for each in fields.objects("lines", MAX_LINES):
        line = Line(
            product_id=each.integer("product_id", 1, MAX_ID),
            quantity=each.integer("quantity", 1, MAX_QUANTITY),
        )
        each.end()

        if line.product_id in lines:
            each.problem("product_id", "is in another line already")

        lines[line.product_id] = line

    fields.check()
    return OrderRequest(user_id=user_id, lines=tuple(lines.values()))


def quantity(values: Mapping[str, Any]) -> int:
    fields = Fields(values)
    quantity = fields.integer("quantity", 0, MAX_QUANTITY)
    fields.check()
    return quantity


def buyer(values: Mapping[str, Any]) -> int:
    fields = Fields(values)
    user_id = fields.integer("user_id", 1, MAX_ID)
    fields.check()
    return user_id


def watch(text: str) -> int:
    """Which product a message asks to watch."""
    fields = Fields(_object("the message", text))
    product_id = fields.integer("watch", 1, MAX_ID)
    fields.check()
    return product_id


def _object(what: str, text: str | bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{what} is no JSON") from error

    if not isinstance(value, dict):
        raise Malformed(f"{what} is no JSON object")

    return value


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_ID)) else text
