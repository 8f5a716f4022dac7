import product
import pytest
from product import Registry


@pytest.fixture(autouse=True)
def clean_registry():
    yield
    Registry.tasks = {}
    Registry.names = []
    product.Registry.current = None
