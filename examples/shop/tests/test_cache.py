from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from shop.cache import Cache

pytestmark = pytest.mark.anyio


async def test_miss(cache):
    assert await cache.get("nothing") is None


@pytest.mark.parametrize(
    "value", [{}, {"id": 1}, {"name": "Zoë ☕", "tags": ["a", None, True]}], ids=["empty", "id", "nested"]
)
async def test_round_trip(cache, value):
    await cache.put("key", value)

    assert await cache.get("key") == value


async def test_later_value_wins(cache):
    await cache.put("key", {"version": 1})
    await cache.put("key", {"version": 2})

    assert await cache.get("key") == {"version": 2}


async def test_forget_takes_several_keys(cache, redis):
    for key in ("a", "b", "c"):
        await cache.put(key, {})

    await cache.forget("a", "b", "never-there")

    assert await cache.get("a") is None
    assert await cache.get("c") == {}
    assert await redis.dbsize() == 1


async def test_entry_has_a_time_to_live(cache, redis):
    await cache.put("key", {})

    assert 0 < await redis.pttl("key") <= 60_000


async def test_entry_expires(redis):
    cache = Cache(redis, ttl=timedelta(milliseconds=20))
    await cache.put("key", {})
    await asyncio.sleep(0.05)

    assert await cache.get("key") is None


async def test_tests_do_not_see_each_others_keys(cache, redis):
    """Every test here writes ``key``: this database is nobody else's."""
    await cache.put("key", {})

    assert await redis.dbsize() == 1


async def test_dead_redis_is_a_miss(dead_redis):
    cache = Cache(dead_redis)
    await cache.put("key", {"id": 1})

    assert await cache.get("key") is None
    await cache.forget("key")
