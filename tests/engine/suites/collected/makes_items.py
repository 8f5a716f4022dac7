"""A plugin with items of its own."""

import pytest


class Own(pytest.Function):
    pass


def pytest_pycollect_makeitem(collector, name, obj):
    return Own.from_parent(collector, name=name) if name.endswith("_too") and callable(obj) else None
