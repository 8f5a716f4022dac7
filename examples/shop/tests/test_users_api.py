from __future__ import annotations

import pytest
from asynctest_kit.http.client import Api
from asynctest_kit.http.matching import exactly

from shop.app import create_app

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["cold", "warm"])
async def stored(request, api, make_user):
    """A stored user, once not yet cached and once cached: nobody may see a difference."""
    user = await make_user(name="Grace")

    if request.param == "warm":
        (await api.get(f"/api/users/{user.id}")).expect(200)

    return user


async def test_create_user_stores_the_row(api, pg, unique_email):
    email = unique_email()
    response = await api.post("/api/users", json={"email": email, "name": "Ada Lovelace"})

    row = await pg.fetchrow("SELECT id, email, name FROM users WHERE email = $1", email)
    response.expect(201, json={"id": int, "email": email, "name": "Ada Lovelace"} | dict(row))


async def test_created_user_is_at_its_location(api, unique_email):
    created = await api.post("/api/users", json={"email": unique_email(), "name": "Ada"})
    found = await api.get(created.headers["location"])

    found.expect(200, json=exactly(created.json()))


async def test_email_is_stored_in_lower_case(api, pg, unique_email):
    email = unique_email()
    response = await api.post("/api/users", json={"email": f"  {email.upper()} ", "name": "Ada"})

    assert response.json()["email"] == email
    assert await pg.fetchval("SELECT count(*) FROM users WHERE email = $1", email) == 1


@pytest.mark.parametrize("change_case", [str.lower, str.upper], ids=["same", "other-case"])
async def test_duplicate_email_conflicts(api, pg, make_user, change_case):
    user = await make_user()
    response = await api.post("/api/users", json={"email": change_case(user.email), "name": "Impostor"})

    response.expect(409, json={"error": {"fields": exactly({"email": "is taken"})}})
    assert await pg.fetchval("SELECT array_agg(name) FROM users WHERE email = $1", user.email) == ["Ada"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        pytest.param({"email": "no-at-sign"}, "email", id="email-without-at"),
        pytest.param({"email": "a@b"}, "email", id="email-without-dot"),
        pytest.param({"email": None}, "email", id="email-null"),
        pytest.param({"email": "a" * 250 + "@example.com"}, "email", id="email-too-long"),
        pytest.param({"name": "   "}, "name", id="name-blank"),
        pytest.param({"name": 7}, "name", id="name-number"),
        pytest.param({"name": "nul\x00"}, "name", id="name-control-character"),
        pytest.param({"role": "admin"}, "role", id="unknown-field"),
    ],
)
async def test_unacceptable_value_is_told_by_field(api, pg, change, field):
    response = await api.post("/api/users", json={"email": "ada@example.com", "name": "Ada", **change})

    assert response.status_code == 422
    assert list(response.json()["error"]["fields"]) == [field]
    assert await pg.fetchval("SELECT count(*) FROM users") == 0


async def test_all_problems_are_told_at_once(api):
    response = await api.post("/api/users", json={"email": "?", "age": 36})

    assert response.json()["error"]["code"] == "invalid"
    assert response.json()["error"]["fields"].keys() == {"email", "name", "age"}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000], ids=["empty", "cut", "list", "latin", "deep"]
)
async def test_malformed_body_is_refused(api, body):
    response = await api.post("/api/users", content=body)

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "malformed"


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_unknown_user_is_not_found(api, method):
    response = await api.request(method, "/api/users/9000000000", json={"name": "Nobody"})

    assert response.status_code == 404
    assert response.json()["error"] == {"code": "not_found", "message": "there is no user 9000000000", "fields": {}}


@pytest.mark.parametrize(
    "identity",
    ["0", "-1", "ada", "9223372036854775808", "9" * 5000, "²"],
    ids=["zero", "negative", "word", "beyond-bigint", "endless", "superscript"],
)
async def test_impossible_id_is_not_found(api, identity):
    response = await api.get(f"/api/users/{identity}")

    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


async def test_read(api, stored):
    response = await api.get(f"/api/users/{stored.id}")

    assert response.status_code == 200
    assert response.json() == stored.to_json()


async def test_update_is_read_back(api, stored):
    changed = await api.patch(f"/api/users/{stored.id}", json={"name": "Rear Admiral Hopper"})
    read = await api.get(f"/api/users/{stored.id}")

    assert changed.status_code == 200
    assert read.json() == {**stored.to_json(), "name": "Rear Admiral Hopper"}


async def test_deleted_user_is_gone(api, pg, stored):
    deleted = await api.delete(f"/api/users/{stored.id}")
    read = await api.get(f"/api/users/{stored.id}")

    assert (deleted.status_code, read.status_code) == (204, 404)
    assert await pg.fetchval("SELECT count(*) FROM users WHERE id = $1", stored.id) == 0


async def test_update_to_a_taken_email_changes_nothing(api, pg, make_user):
    ada, grace = await make_user(name="Ada"), await make_user(name="Grace")
    response = await api.patch(f"/api/users/{grace.id}", json={"email": ada.email, "name": "Ada"})

    assert response.status_code == 409
    row = await pg.fetchrow("SELECT email, name FROM users WHERE id = $1", grace.id)
    assert tuple(row) == (grace.email, "Grace")


async def test_user_with_orders_is_not_deleted(api, pg, place_order):
    order = await place_order()
    response = await api.delete(f"/api/users/{order.user_id}")

    assert response.status_code == 409
    assert await pg.fetchval("SELECT count(*) FROM users WHERE id = $1", order.user_id) == 1


async def test_pages_hold_every_user_once(api, make_user):
    made = [(await make_user()).id for _ in range(5)]
    seen, after, sizes = [], 0, []

    while after is not None:
        page = (await api.get("/api/users", params={"limit": 2, "after": after})).json()
        seen += [user["id"] for user in page["items"]]
        sizes.append(len(page["items"]))
        after = page["next"]

    assert seen == made
    assert sizes == [2, 2, 1]


async def test_page_that_ends_exactly_is_the_last(api, make_user):
    for _ in range(2):
        await make_user()

    page = (await api.get("/api/users", params={"limit": 2})).json()
    assert len(page["items"]) == 2
    assert page["next"] is None


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=ten", "limit=", "after=-1", "after=9223372036854775808"]
)
async def test_unacceptable_page_is_refused(api, query):
    response = await api.get(f"/api/users?{query}")

    assert response.status_code == 422
    assert list(response.json()["error"]["fields"]) == [query.partition("=")[0]]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/api/nothing", 404), ("PUT", "/api/users", 405)])
async def test_other_errors_have_the_same_shape(api, method, path, status):
    response = await api.request(method, path)

    response.expect(status, json={"error": exactly({"code": str, "message": str, "fields": dict})})


async def test_clients_request_id_is_kept(api):
    response = await api.get("/api/users", headers={"x-request-id": "from-the-proxy.1"})

    assert response.headers["x-request-id"] == "from-the-proxy.1"


async def test_bad_request_id_is_replaced(api):
    response = await api.get("/api/users", headers={"x-request-id": "forged\tline"})

    assert response.headers["x-request-id"].isalnum()


async def test_users_without_a_cache(pg_pool, dead_redis, payments_http, unique_email):
    """The shop goes on when Redis is down: reads come from the database, writes don't fail."""
    app = create_app(pool=pg_pool, redis=dead_redis, http=payments_http)

    async with Api(app) as api:
        created = await api.post("/api/users", json={"email": unique_email(), "name": "Ada"})
        place = created.expect(201).headers["location"]
        (await api.patch(place, json={"name": "Countess"})).expect(200)
        (await api.get(place)).expect(200, json={"name": "Countess"})
        (await api.get("/healthz")).expect(200, json=exactly({"database": "up", "cache": "down"}))
