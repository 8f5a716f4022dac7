"""A Faker of the session that holds what can't be copied."""

import threading

import pytest
from faker import Faker
from faker.providers import BaseProvider

pytestmark = pytest.mark.anyio


class Counted(BaseProvider):
    def __init__(self, generator):
        super().__init__(generator)
        self.lock = threading.Lock()

    def counted(self):
        with self.lock:
            return self.random_int(1, 10**6)


@pytest.fixture(scope="session")
def _session_faker():
    fake = Faker()
    fake.add_provider(Counted)
    return fake


@pytest.mark.parametrize("number", range(2))
async def test_counts(faker, drawn, number):
    assert len(await drawn(faker.counted)) == 6
