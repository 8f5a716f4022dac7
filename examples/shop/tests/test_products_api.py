from __future__ import annotations

from uuid import uuid4

import pytest
from asynctest_kit.http.matching import exactly

pytestmark = pytest.mark.anyio


@pytest.fixture
def tea():
    return {"sku": f"TEA-{uuid4().hex.upper()}", "name": "Oolong", "price_cents": 1299, "stock": 3}


async def test_create_product_stores_the_row(api, pg, tea):
    response = await api.post("/api/products", json=tea)

    assert response.status_code == 201
    row = await pg.fetchrow("SELECT sku, name, price_cents, stock FROM products WHERE id = $1", response.json()["id"])
    assert dict(row) == tea


async def test_duplicate_sku_conflicts(api, tea):
    first = await api.post("/api/products", json=tea)
    second = await api.post("/api/products", json=tea)

    first.expect(201)
    second.expect(409, json={"error": {"fields": exactly({"sku": "is taken"})}})


@pytest.mark.parametrize("price", [0, -1, 12.99, "1299", True, 10_000_001])
async def test_price_is_whole_positive_cents(api, tea, price):
    response = await api.post("/api/products", json={**tea, "price_cents": price})

    response.expect(422, json={"error": {"fields": exactly({"price_cents": str})}})


async def test_new_price_is_seen_at_once(api, make_product):
    product = await make_product(price_cents=450)
    path = f"/api/products/{product.id}"

    (await api.get(path)).expect(200, json={"price_cents": 450})
    (await api.patch(path, json={"price_cents": 500})).expect(200, json={"price_cents": 500})
    (await api.get(path)).expect(200, json={"price_cents": 500, "stock": product.stock})


@pytest.mark.parametrize("method", ["GET", "PATCH"])
async def test_unknown_product_is_not_found(api, method):
    (await api.request(method, "/api/products/9000000000", json={"stock": 1})).expect(404)


async def test_products_are_listed_by_id(api, make_product):
    made = [(await make_product()).to_json() for _ in range(3)]
    page = await api.get("/api/products", params={"after": made[0]["id"]})

    page.expect(200, json=exactly({"items": made[1:], "next": None}))
