import pytest


@pytest.fixture
def place(place):
    return f"{place}/north"


@pytest.fixture(autouse=True)
def around_north(place):
    yield
