import product
import pytest
from trail import note


@pytest.fixture(autouse=True)
def constants(monkeypatch):
    monkeypatch.setattr(product.Settings, "DEBUG", True)
    monkeypatch.setattr("product.Settings.LIMIT", 99)
    monkeypatch.setitem(product.Settings.extra, "mode", "patched")
    monkeypatch.setattr(product, "now", lambda: 42.0)
    monkeypatch.setenv("AMBIENT", "patched")


@pytest.fixture
def counted(monkeypatch):
    """Not the same for all: it notes."""
    note("counted")
    monkeypatch.setattr(product.Settings, "LIMIT", 7)
