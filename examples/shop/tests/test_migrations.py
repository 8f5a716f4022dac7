from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

ALEMBIC_INI = Path(__file__).parents[1] / "alembic.ini"
TABLES = "SELECT array_agg(tablename::text ORDER BY tablename) FROM pg_tables WHERE schemaname = 'public'"


@pytest.fixture(scope="module")
def scripts():
    return ScriptDirectory.from_config(Config(ALEMBIC_INI))


def test_history_is_one_line(scripts):
    assert len(scripts.get_heads()) == 1
    assert [each.revision for each in scripts.walk_revisions()] == ["0003", "0002", "0001"]


@pytest.mark.anyio
async def test_database_is_at_the_head(pg, scripts):
    assert await pg.fetchval("SELECT version_num FROM alembic_version") == scripts.get_current_head()
    assert await pg.fetchval(TABLES) == ["alembic_version", "order_lines", "orders", "products", "users"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("UPDATE products SET stock = -1", "products_stock_not_negative"),
        ("UPDATE products SET price_cents = 0", "products_price_positive"),
        ("UPDATE users SET email = upper(email)", "users_email_lower"),
        ("UPDATE orders SET status = 'lost'", "orders_status_known"),
        ("UPDATE orders SET status = 'paid'", "orders_paid_has_payment"),
        ("UPDATE orders SET total_cents = 0", "orders_total_positive"),
        ("UPDATE order_lines SET quantity = 0", "order_lines_quantity_positive"),
        ("DELETE FROM products", "order_lines_product_id_fkey"),
        ("DELETE FROM orders", "order_lines_order_id_fkey"),
    ],
    ids=lambda value: None if " " in value else value,
)
async def test_database_keeps_its_own_rules(pg, place_order, statement, constraint):
    await place_order()

    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as violation:
        async with pg.transaction():
            await pg.execute(statement)

    assert violation.value.constraint_name == constraint
