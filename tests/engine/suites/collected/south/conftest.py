import pytest


@pytest.fixture
def place(place):
    return f"{place}/south"


@pytest.fixture(autouse=True)
def around_south(place):
    yield
