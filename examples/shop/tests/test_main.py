"""Production's composition: settings from the environment, connections opened by the lifespan."""

from __future__ import annotations

import asyncpg
import pytest
from asynctest_kit.http.client import Api
from asynctest_kit.http.matching import exactly

from shop import main
from shop.database import sqlalchemy_url
from shop.settings import Settings


@pytest.mark.anyio
async def test_service_starts_from_its_environment(monkeypatch, postgres, redis_url):
    monkeypatch.setenv("DATABASE_URL", postgres.url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("PAYMENTS_URL", "http://payments.test")

    async with Api(main.app()) as api:
        (await api.get("/healthz")).expect(200, json=exactly({"database": "up", "cache": "up"}))


@pytest.fixture
def app(served_shop):
    return served_shop(PAYMENTS_URL="http://payments.test")


@pytest.mark.anyio
async def test_served_service_stores_a_user(api, pg_database):
    user = {"email": "ada@example.com", "name": "Ada"}
    (await api.post("/api/users", json=user)).expect(201, json={"id": int, **user})

    async with asyncpg.create_pool(pg_database.url, min_size=1, max_size=1) as pool:
        assert await pool.fetchval("SELECT name FROM users") == "Ada"


def test_missing_settings_are_named():
    with pytest.raises(ValueError, match="set DATABASE_URL, PAYMENTS_URL in"):
        Settings.from_environment({"REDIS_URL": "redis://localhost", "PAYMENTS_URL": ""})


def test_settings():
    settings = Settings.from_environment(
        {"DATABASE_URL": "d", "REDIS_URL": "r", "PAYMENTS_URL": "p", "PAYMENTS_TIMEOUT": "0.5"}
    )

    assert settings == Settings(
        database_url="d", redis_url="r", payments_url="p", channel_prefix="", payments_timeout=0.5, cache_ttl=60.0
    )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p%40@h:5/d?ssl=require", "postgresql+asyncpg://u:p%40@h:5/d?ssl=require"),
        ("postgres://h/d", "postgresql+asyncpg://h/d"),
        ("postgresql+psycopg://h/d", "postgresql+psycopg://h/d"),
    ],
    ids=["plain", "short", "driver-named"],
)
def test_sqlalchemy_url(url, expected):
    assert sqlalchemy_url(url) == expected


def test_other_databases_are_refused():
    with pytest.raises(ValueError, match="mysql"):
        sqlalchemy_url("mysql://h/d")
