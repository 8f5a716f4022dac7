"""SQL in, models out. A repository works on the connection it is given: transactions are its caller's business.

A ``page`` holds one item more than its limit where there is one, so that the caller knows whether another page follows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shop.database import Connection
from shop.models import (
    NewProduct,
    NewUser,
    Order,
    OrderLine,
    OrderStatus,
    PageRequest,
    Product,
    ProductChanges,
    User,
    UserChanges,
)

__all__ = ["OrderRepository", "ProductRepository", "UserRepository"]

_USER = "id, email, name, created_at"
_PRODUCT = "id, sku, name, price_cents, stock"
_ORDER = "id, user_id, status, total_cents, payment_attempt, payment_id, created_at"


class UserRepository:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def insert(self, new: NewUser) -> User:
        """Raises asyncpg's UniqueViolationError if the e-mail address is taken."""
        row = await self._connection.fetchrow(
            f"INSERT INTO users (email, name) VALUES ($1, $2) RETURNING {_USER}", new.email, new.name
        )
        return User(**row)

    async def get(self, user_id: int) -> User | None:
        row = await self._connection.fetchrow(f"SELECT {_USER} FROM users WHERE id = $1", user_id)
        return User(**row) if row else None

    async def page(self, page: PageRequest) -> tuple[User, ...]:
        rows = await self._connection.fetch(
            f"SELECT {_USER} FROM users WHERE id > $1 ORDER BY id LIMIT $2", page.after, page.limit + 1
        )
        return tuple(User(**row) for row in rows)

    async def update(self, user_id: int, changes: UserChanges) -> User | None:
        """Raises asyncpg's UniqueViolationError if the new e-mail address is taken."""
        row = await self._connection.fetchrow(
            f"""
            UPDATE users SET email = coalesce($2, email), name = coalesce($3, name)
            WHERE id = $1 RETURNING {_USER}
            """,
            user_id,
            changes.email,
            changes.name,
        )
        return User(**row) if row else None

    async def delete(self, user_id: int) -> bool:
        """Raises asyncpg's ForeignKeyViolationError if the user has orders."""
        return await self._connection.fetchval("DELETE FROM users WHERE id = $1 RETURNING true", user_id) or False

    async def keep(self, user_id: int) -> bool:
        """Whether the user exists; until the transaction ends nobody can delete it."""
        return await self._connection.fetchval("SELECT true FROM users WHERE id = $1 FOR KEY SHARE", user_id) or False


class ProductRepository:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def insert(self, new: NewProduct) -> Product:
        """Raises asyncpg's UniqueViolationError if the SKU is taken."""
        row = await self._connection.fetchrow(
            f"INSERT INTO products (sku, name, price_cents, stock) VALUES ($1, $2, $3, $4) RETURNING {_PRODUCT}",
            new.sku,
            new.name,
            new.price_cents,
            new.stock,
        )
        return Product(**row)

    async def get(self, product_id: int) -> Product | None:
        row = await self._connection.fetchrow(f"SELECT {_PRODUCT} FROM products WHERE id = $1", product_id)
        return Product(**row) if row else None

    async def page(self, page: PageRequest) -> tuple[Product, ...]:
        rows = await self._connection.fetch(
            f"SELECT {_PRODUCT} FROM products WHERE id > $1 ORDER BY id LIMIT $2", page.after, page.limit + 1
        )
        return tuple(Product(**row) for row in rows)

    async def update(self, product_id: int, changes: ProductChanges) -> Product | None:
        row = await self._connection.fetchrow(
            f"""
            UPDATE products SET price_cents = coalesce($2, price_cents), stock = coalesce($3, stock)
            WHERE id = $1 RETURNING {_PRODUCT}
            """,
            product_id,
            changes.price_cents,
            changes.stock,
        )
        return Product(**row) if row else None

    async def lock(self, product_ids: Iterable[int]) -> Mapping[int, Product]:
        """The products that exist, by id, locked in the order of their ids so that two orders can't deadlock."""
        rows = await self._connection.fetch(
            f"SELECT {_PRODUCT} FROM products WHERE id = ANY($1::bigint[]) ORDER BY id FOR UPDATE", list(product_ids)
        )
        return {row["id"]: Product(**row) for row in rows}

    async def restock(self, product_id: int, quantity: int) -> None:
        """Add to the stock of a locked product; a negative quantity takes from it."""
        await self._connection.execute("UPDATE products SET stock = stock + $2 WHERE id = $1", product_id, quantity)


class OrderRepository:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def insert(self, user_id: int, lines: Sequence[OrderLine]) -> Order:
        row = await self._connection.fetchrow(
            f"INSERT INTO orders (user_id, total_cents) VALUES ($1, $2) RETURNING {_ORDER}",
            user_id,
            sum(line.quantity * line.unit_price_cents for line in lines),
        )
        await self._connection.execute(
            """
            INSERT INTO order_lines (order_id, product_id, quantity, unit_price_cents)
            SELECT $1, * FROM unnest($2::bigint[], $3::integer[], $4::bigint[])
            """,
            row["id"],
            [line.product_id for line in lines],
            [line.quantity for line in lines],
            [line.unit_price_cents for line in lines],
        )
        return _order(row, sorted(lines, key=lambda line: line.product_id))

    async def get(self, order_id: int) -> Order | None:
        return await self._one(f"SELECT {_ORDER} FROM orders WHERE id = $1", order_id)

    async def lock(self, order_id: int) -> Order | None:
        """The order, locked until the transaction ends."""
        return await self._one(f"SELECT {_ORDER} FROM orders WHERE id = $1 FOR UPDATE", order_id)

    async def page(self, user_id: int, page: PageRequest) -> tuple[Order, ...]:
        rows = await self._connection.fetch(
            f"SELECT {_ORDER} FROM orders WHERE user_id = $1 AND id > $2 ORDER BY id LIMIT $3",
            user_id,
            page.after,
            page.limit + 1,
        )
        lines = await self._lines([row["id"] for row in rows])
        return tuple(_order(row, lines[row["id"]]) for row in rows)

    async def begin_payment(self, order_id: int) -> Order:
        """Mark as paying; a new attempt is counted unless the last one is still in doubt."""
        return await self._change(
            order_id,
            "status = 'paying', payment_attempt = payment_attempt + (status = 'pending')::integer",
        )

    async def end_payment(self, order_id: int, payment_id: str) -> Order:
        return await self._change(order_id, "status = 'paid', payment_id = $2", payment_id)

    async def release(self, order_id: int, payment_attempt: int) -> bool:
        """Back to pending, unless another attempt has begun since; tells whether it is."""
        released = await self._connection.fetchval(
            """
            UPDATE orders SET status = 'pending'
            WHERE id = $1 AND status = 'paying' AND payment_attempt = $2 RETURNING true
            """,
            order_id,
            payment_attempt,
        )
        return released or False

    async def cancel(self, order_id: int) -> Order:
        return await self._change(order_id, "status = 'cancelled'")

    async def _change(self, order_id: int, assignments: str, *args: object) -> Order:
        row = await self._connection.fetchrow(
            f"UPDATE orders SET {assignments} WHERE id = $1 RETURNING {_ORDER}", order_id, *args
        )
        lines = await self._lines([order_id])
        return _order(row, lines[order_id])

    async def _one(self, query: str, order_id: int) -> Order | None:
        row = await self._connection.fetchrow(query, order_id)

        if row is None:
            return None

        lines = await self._lines([order_id])
        return _order(row, lines[order_id])

    async def _lines(self, order_ids: Sequence[int]) -> Mapping[int, Sequence[OrderLine]]:
        rows = await self._connection.fetch(
            """
            SELECT order_id, product_id, quantity, unit_price_cents FROM order_lines
            WHERE order_id = ANY($1::bigint[]) ORDER BY order_id, product_id
            """,
            list(order_ids),
        )
        lines: dict[int, list[OrderLine]] = defaultdict(list)

        for row in rows:
            order_id, product_id, quantity, unit_price_cents = row
            lines[order_id].append(
                OrderLine(product_id=product_id, quantity=quantity, unit_price_cents=unit_price_cents)
            )

        return lines


def _order(row: Mapping[str, Any], lines: Sequence[OrderLine]) -> Order:
    values = {**row, "status": OrderStatus(row["status"])}
    return Order(**values, lines=tuple(lines))
