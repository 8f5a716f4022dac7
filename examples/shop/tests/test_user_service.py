from __future__ import annotations

from dataclasses import replace

import pytest

from shop.errors import Conflict, NotFound
from shop.models import NewUser, PageRequest, UserChanges

pytestmark = pytest.mark.anyio


@pytest.fixture
def users(shop):
    return shop.users


@pytest.fixture
async def ada(users, unique_email):
    return await users.create(NewUser(email=unique_email(), name="Ada"))


async def test_life_of_a_user(users, unique_email):
    created = await users.create(NewUser(email=unique_email(), name="Ada"))
    assert await users.get(created.id) == created

    renamed = await users.update(created.id, UserChanges(name="Countess"))
    assert renamed == replace(created, name="Countess")
    assert await users.get(created.id) == renamed

    await users.delete(created.id)
    with pytest.raises(NotFound, match=f"no user {created.id}"):
        await users.get(created.id)


async def test_second_read_comes_from_the_cache(users, pg, ada):
    first = await users.get(ada.id)
    await pg.execute("UPDATE users SET name = 'behind its back' WHERE id = $1", ada.id)

    assert await users.get(ada.id) == first


async def test_update_invalidates_the_cache(users, redis, ada):
    await users.get(ada.id)
    assert await redis.exists(f"user:{ada.id}")

    await users.update(ada.id, UserChanges(name="Countess"))
    assert not await redis.exists(f"user:{ada.id}")
    assert (await users.get(ada.id)).name == "Countess"


async def test_delete_invalidates_the_cache(users, redis, ada):
    await users.get(ada.id)
    await users.delete(ada.id)

    assert await redis.keys() == []


async def test_missing_user_is_not_cached(users, redis):
    with pytest.raises(NotFound):
        await users.get(9_000_000_000)

    assert await redis.keys() == []


async def test_duplicate_email(users, ada):
    with pytest.raises(Conflict) as conflict:
        await users.create(NewUser(email=ada.email, name="Impostor"))

    assert conflict.value.fields == {"email": "is taken"}


async def test_shop_goes_on_after_a_conflict(users, ada, unique_email):
    """The failed insert must not break the connection for those after it."""
    with pytest.raises(Conflict):
        await users.create(NewUser(email=ada.email, name="Impostor"))

    grace = await users.create(NewUser(email=unique_email(), name="Grace"))
    assert (await users.page(PageRequest())).items == (ada, grace)


async def test_no_changes_change_nothing(users, ada):
    assert await users.update(ada.id, UserChanges()) == ada


@pytest.mark.parametrize("use", ["update", "delete"])
async def test_unknown_user(users, use):
    calls = {
        "update": lambda: users.update(9_000_000_000, UserChanges(name="x")),
        "delete": lambda: users.delete(9_000_000_000),
    }

    with pytest.raises(NotFound):
        await calls[use]()
