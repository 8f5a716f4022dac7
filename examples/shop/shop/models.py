"""The shop's data: frozen, money in integer cents, times in UTC. ``to_json`` is what clients and the cache see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar

__all__ = [
    "Cart",
    "Line",
    "NewProduct",
    "NewUser",
    "Order",
    "OrderLine",
    "OrderRequest",
    "OrderStatus",
    "Page",
    "PageRequest",
    "Product",
    "ProductChanges",
    "User",
    "UserChanges",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUser:
    email: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UserChanges:
    """What to change; None leaves a value as it is."""

    email: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    id: int
    email: str
    name: str
    created_at: datetime

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "email": self.email, "name": self.name, "created_at": self.created_at.isoformat()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> User:
        return cls(**{**data, "created_at": datetime.fromisoformat(data["created_at"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class NewProduct:
    sku: str
    name: str
    price_cents: int
    stock: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductChanges:
    """What to change; None leaves a value as it is."""

    price_cents: int | None = None
    stock: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    id: int
    sku: str
    name: str
    price_cents: int
    stock: int

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "sku": self.sku,
            "name": self.name,
            "price_cents": self.price_cents,
            "stock": self.stock,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Product:
        return cls(**data)


class OrderStatus(StrEnum):
    """``pending -> paying -> paid``, or ``pending -> cancelled``. While its charge is in doubt it is ``paying``."""

    PENDING = "pending"
    PAYING = "paying"
    PAID = "paid"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in {OrderStatus.PAID, OrderStatus.CANCELLED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """So many of a product, as a client asks for them."""

    product_id: int
    quantity: int

    def to_json(self) -> dict[str, Any]:
        return {"product_id": self.product_id, "quantity": self.quantity}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cart:
    """What a visitor means to order, by the ids of the products."""

    MAX_LINES: ClassVar = 50

    lines: tuple[Line, ...]

    def with_line(self, line: Line) -> Cart:
        """With this instead of what there is of the product, if anything."""
        kept = [each for each in self.lines if each.product_id != line.product_id]
        lines = [*kept, line] if line.quantity else kept
        return Cart(lines=tuple(sorted(lines, key=lambda each: each.product_id)))

    def to_json(self) -> dict[str, Any]:
        return {"lines": [line.to_json() for line in self.lines]}


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRequest:
    user_id: int
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderLine:
    """A line with the unit price of the moment of ordering: later price changes don't touch it."""

    product_id: int
    quantity: int
    unit_price_cents: int

    def to_json(self) -> dict[str, Any]:
        return {
            "product_id": self.product_id,
            "quantity": self.quantity,
            "unit_price_cents": self.unit_price_cents,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order. ``payment_attempt`` numbers the charges tried; ``payment_id`` is the provider's, once paid."""

    id: int
    user_id: int
    status: OrderStatus
    total_cents: int
    payment_attempt: int
    payment_id: str | None
    created_at: datetime
    lines: tuple[OrderLine, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "user_id": self.user_id,
            "status": self.status,
            "total_cents": self.total_cents,
            "payment_id": self.payment_id,
            "created_at": self.created_at.isoformat(),
            "lines": [line.to_json() for line in self.lines],
        }

    def progress(self) -> dict[str, Any]:
        """What changes while it is paid for or cancelled."""
        return {"status": self.status, "payment_attempt": self.payment_attempt, "payment_id": self.payment_id}

    def at(self, progress: Mapping[str, Any]) -> Order:
        """The same order, that much further."""
        return replace(self, **{**progress, "status": OrderStatus(progress["status"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """At most ``limit`` items whose id is greater than ``after``."""

    limit: int = 20
    after: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """Items in the order of their ids; ``next`` is the ``after`` of the next page, None on the last one."""

    items: tuple[T, ...]
    next: int | None
