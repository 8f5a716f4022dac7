import pytest


@pytest.fixture
def place(place):
    return f"{place}/south/deep"


@pytest.fixture(autouse=True)
def around_deep(place):
    yield
