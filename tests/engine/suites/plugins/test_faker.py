"""Tests that draw values from faker's fixture: each draws what it would draw if there were no other."""

import pytest
from faker import Faker
from faker.providers import BaseProvider

pytestmark = pytest.mark.anyio


class Shop(BaseProvider):
    def article(self):
        return f"article {self.random_int(1, 10**6)}"


def seeded(seed, locale="en_US"):
    fake = Faker(locale=[locale])
    fake.seed_instance(seed)
    return fake


@pytest.mark.parametrize("number", range(4))
async def test_draws(faker, drawn, number):
    expected = seeded(0)
    assert await drawn(faker.name) == [expected.name() for _ in range(6)]


async def test_asks(request, drawn):
    expected = seeded(0)
    assert await drawn(request.getfixturevalue("faker").name) == [expected.name() for _ in range(6)]


@pytest.mark.parametrize("number", range(2))
async def test_none_twice(faker, drawn, number):
    assert sorted(await drawn(lambda: faker.unique.random_int(1, 6))) == [1, 2, 3, 4, 5, 6]


def test_sync(faker, record_property):
    record_property("drawn", [faker.name() for _ in range(6)])


class TestSeeded:
    @pytest.fixture(autouse=True)
    def faker_seed(self):
        return 7

    @pytest.mark.parametrize("number", range(2))
    async def test_draws(self, faker, drawn, number):
        expected = seeded(7)
        assert await drawn(faker.name) == [expected.name() for _ in range(6)]


class TestElsewhere:
    @pytest.fixture(autouse=True)
    def faker_locale(self):
        return ["it_IT"]

    @pytest.mark.parametrize("number", range(2))
    async def test_draws(self, faker, drawn, number):
        expected = seeded(0, "it_IT")
        assert await drawn(faker.name) == [expected.name() for _ in range(6)]


class TestOfTheShop:
    @pytest.fixture
    def faker(self, faker):
        faker.add_provider(Shop)
        return faker

    @pytest.mark.parametrize("number", range(2))
    async def test_draws(self, faker, drawn, number):
        assert all(value.startswith("article ") for value in await drawn(faker.article))
