"""What the shop does: each method is one use case, with its transaction, its cache invalidation and its errors.

No row stays locked while the payment provider is asked: placing an order and paying for it are transactions of their
own, and an order whose charge is in doubt stays ``paying`` until a repeated payment settles it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from asyncpg.exceptions import ForeignKeyViolationError, UniqueViolationError

from shop.cache import Cache
from shop.database import Pool
from shop.errors import Conflict, InsufficientStock, NotFound, PaymentDeclined
from shop.models import (
    Line,
    NewProduct,
    NewUser,
    Order,
    OrderLine,
    OrderRequest,
    OrderStatus,
    Page,
    PageRequest,
    Product,
    ProductChanges,
    User,
    UserChanges,
)
from shop.news import News
from shop.payments import Payments
from shop.repositories import OrderRepository, ProductRepository, UserRepository

__all__ = ["OrderService", "ProductService", "UserService"]

HasId = TypeVar("HasId", User, Product, Order)


class UserService:
    def __init__(self, pool: Pool, cache: Cache) -> None:
        self._pool = pool
        self._cache = cache

    async def create(self, new: NewUser) -> User:
        async with self._pool.acquire() as connection:
            try:
                return await UserRepository(connection).insert(new)
            except UniqueViolationError as error:
                raise _email_taken(new.email) from error

    async def get(self, user_id: int) -> User:
        if cached := await self._cache.get(_user_key(user_id)):
            return User.from_json(cached)

        async with self._pool.acquire() as connection:
            user = await UserRepository(connection).get(user_id)

        if user is None:
            raise NotFound("user", user_id)

        await self._cache.put(_user_key(user_id), user.to_json())
        return user

    async def page(self, page: PageRequest) -> Page[User]:
        async with self._pool.acquire() as connection:
            return _page(await UserRepository(connection).page(page), page)

    async def update(self, user_id: int, changes: UserChanges) -> User:
        async with self._pool.acquire() as connection:
            try:
                user = await UserRepository(connection).update(user_id, changes)
            except UniqueViolationError as error:
                raise _email_taken(changes.email) from error

        if user is None:
            raise NotFound("user", user_id)

        await self._cache.forget(_user_key(user_id))
        return user

    async def delete(self, user_id: int) -> None:
        async with self._pool.acquire() as connection:
            try:
                deleted = await UserRepository(connection).delete(user_id)
            except ForeignKeyViolationError as error:
                raise Conflict(f"user {user_id} has orders") from error

        if not deleted:
            raise NotFound("user", user_id)

        await self._cache.forget(_user_key(user_id))


class ProductService:
    def __init__(self, pool: Pool, cache: Cache, news: News) -> None:
        self._pool = pool
        self._cache = cache
        self._news = news

    async def create(self, new: NewProduct) -> Product:
        async with self._pool.acquire() as connection:
            try:
                return await ProductRepository(connection).insert(new)
            except UniqueViolationError as error:
                raise Conflict(f"the SKU {new.sku} is taken", fields={"sku": "is taken"}) from error

    async def get(self, product_id: int) -> Product:
        if cached := await self._cache.get(_product_key(product_id)):
            return Product.from_json(cached)

        async with self._pool.acquire() as connection:
            product = await ProductRepository(connection).get(product_id)

        if product is None:
            raise NotFound("product", product_id)

        await self._cache.put(_product_key(product_id), product.to_json())
        return product

    async def page(self, page: PageRequest) -> Page[Product]:
        async with self._pool.acquire() as connection:
            return _page(await ProductRepository(connection).page(page), page)

    async def update(self, product_id: int, changes: ProductChanges) -> Product:
        async with self._pool.acquire() as connection:
            product = await ProductRepository(connection).update(product_id, changes)

        if product is None:
            raise NotFound("product", product_id)

        await self.changed([product])
        return product

    async def stock(self, product_id: int) -> AsyncGenerator[int, None]:
        """How much there is, and then whenever that changes."""
        async with self._news.of(_product_key(product_id)) as news:
            yield (await self.get(product_id)).stock

            async for changed in news:
                yield changed["stock"]

    async def changed(self, products: Iterable[Product]) -> None:
        """Forget and tell what was committed."""
        levels = {_product_key(product.id): product.stock for product in products}
        await self._cache.forget(*levels)

        for key, stock in levels.items():
            await self._news.tell(key, {"stock": stock})


class OrderService:
    def __init__(self, pool: Pool, products: ProductService, news: News, payments: Payments) -> None:
        self._pool = pool
        self._products = products
        self._news = news
        self._payments = payments

    async def place(self, request: OrderRequest) -> Order:
        """Write the order and take its goods from stock, or change nothing at all."""
        product_ids = [line.product_id for line in request.lines]

        async with self._pool.acquire() as connection, connection.transaction():
            if not await UserRepository(connection).keep(request.user_id):
                raise NotFound("user", request.user_id)

            products = ProductRepository(connection)
            locked = await products.lock(product_ids)
            lines = [await _take(products, line, locked.get(line.product_id)) for line in request.lines]
            order = await OrderRepository(connection).insert(request.user_id, lines)

        await self._products.changed(_restocked(locked, {line.product_id: -line.quantity for line in lines}))
        return order

    async def get(self, order_id: int) -> Order:
        async with self._pool.acquire() as connection:
            order = await OrderRepository(connection).get(order_id)

        if order is None:
            raise NotFound("order", order_id)

        return order

    async def page(self, user_id: int, page: PageRequest) -> Page[Order]:
        async with self._pool.acquire() as connection:
            if await UserRepository(connection).get(user_id) is None:
                raise NotFound("user", user_id)

            return _page(await OrderRepository(connection).page(user_id, page), page)

    async def changes(self, order_id: int) -> AsyncGenerator[Order, None]:
        """The order as it is, and then whenever its status changes, until it is paid or cancelled."""
        async with self._news.of(_order_key(order_id)) as news:
            order = await self.get(order_id)
            yield order

            while not order.status.is_final:
                changed = order.at(await anext(news))

                if changed.status is not order.status:
                    order = changed
                    yield order

    async def pay(self, order_id: int) -> Order:
        """Charge the order's total once, however often this is called."""
        order = await self._begin_payment(order_id)

        if order.status is OrderStatus.PAID:
            return order

        try:
            payment_id = await self._payments.charge(
                amount_cents=order.total_cents, key=f"order-{order.id}-{order.payment_attempt}"
            )
        except PaymentDeclined:
            async with self._pool.acquire() as connection:
                released = await OrderRepository(connection).release(order_id, order.payment_attempt)

            if released:
                await self._tell(order.at({**order.progress(), "status": OrderStatus.PENDING}))

            raise

        async with self._pool.acquire() as connection:
            paid = await OrderRepository(connection).end_payment(order_id, payment_id)

        await self._tell(paid)
        return paid

    async def cancel(self, order_id: int) -> Order:
        """Put the goods of an order that isn't paid back into stock."""
        async with self._pool.acquire() as connection, connection.transaction():
            orders = OrderRepository(connection)
            order = await orders.lock(order_id)

            if order is None:
                raise NotFound("order", order_id)

            if order.status is not OrderStatus.PENDING:
                raise Conflict(f"order {order_id} is {order.status} and can't be cancelled")

            products = ProductRepository(connection)
            locked = await products.lock([line.product_id for line in order.lines])

            for line in order.lines:
                await products.restock(line.product_id, line.quantity)

            cancelled = await orders.cancel(order_id)

        await self._products.changed(_restocked(locked, {line.product_id: line.quantity for line in order.lines}))
        await self._tell(cancelled)
        return cancelled

    async def _begin_payment(self, order_id: int) -> Order:
        async with self._pool.acquire() as connection, connection.transaction():
            orders = OrderRepository(connection)
            order = await orders.lock(order_id)

            if order is None:
                raise NotFound("order", order_id)

            if order.status is OrderStatus.CANCELLED:
                raise Conflict(f"order {order_id} is cancelled")

            if order.status is not OrderStatus.PAID:
                order = await orders.begin_payment(order_id)

        await self._tell(order)
        return order

    async def _tell(self, order: Order) -> None:
        await self._news.tell(_order_key(order.id), order.progress())


async def _take(products: ProductRepository, line: Line, product: Product | None) -> OrderLine:
    """Take a line's goods from a locked product's stock, at its price of now."""
    if product is None:
        raise NotFound("product", line.product_id)

    if product.stock < line.quantity:
        raise InsufficientStock(
            f"product {product.id}: {line.quantity} asked for, {product.stock} in stock",
            fields={f"product {product.id}": f"{product.stock} in stock"},
        )

    await products.restock(product.id, -line.quantity)
    return OrderLine(product_id=product.id, quantity=line.quantity, unit_price_cents=product.price_cents)


def _restocked(products: Mapping[int, Product], quantities: Mapping[int, int]) -> list[Product]:
    return [replace(products[each], stock=products[each].stock + quantity) for each, quantity in quantities.items()]


def _user_key(user_id: int) -> str:
    return f"user:{user_id}"


def _product_key(product_id: int) -> str:
    return f"product:{product_id}"


def _order_key(order_id: int) -> str:
    return f"order:{order_id}"


def _email_taken(email: str | None) -> Conflict:
    return Conflict(f"the e-mail address {email} is taken", fields={"email": "is taken"})


def _page(items: Sequence[HasId], page: PageRequest) -> Page[HasId]:
    shown = tuple(items[: page.limit])
    return Page(items=shown, next=shown[-1].id if len(items) > page.limit else None)
